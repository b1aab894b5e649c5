// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const config = `
listen: ["127.0.0.1:0"]
tls: auto
files: .
nodes:
  - name: n1
    uuid: 6b4b3c1e-5a0f-4a53-8d0e-2f6d3c9a7b10
    macs: ["52:54:00:00:02:0a"]
    image: {file: disk.img}
`

func TestRun(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	shared := strings.Replace(config, "disk.img", "disk.img, torrent: true", 1)
	for name, content := range map[string]string{
		"port.yaml": fmt.Sprintf("torrent: {port: %d}%s", port, shared), "ports.yaml": "torrent: {port: 65536}" + shared,
		"good.yaml": config, "bad.yaml": config + "colour: red\n", "disk.img": "image", "noimage.yaml": strings.Replace(config, "disk.img", "other.img", 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	tests := []struct {
		name   string
		args   []string
		status int
		stdout string // a part of it
		stderr string
	}{
		{"help", []string{"--help"}, 0, "example:", ""},
		{"help of a subcommand", []string{"run", "--help"}, 0, "usage:", ""},
		{"version", []string{"version"}, 0, "labconductor ", ""},
		{"token", []string{"token", in("token")}, 0, "token: new token", ""},
		{"certificates", []string{"ca", "--dir", in("ca"), "--host", "192.0.2.1", "--host", "::1"}, 0, "server.key for 192.0.2.1, ::1", ""},
		{"nothing", nil, 2, "", "usage:"},
		{"unknown subcommand", []string{"walk"}, 2, "", `unknown subcommand "walk"`},
		{"unknown flag", []string{"run", "--fast", in("good.yaml")}, 2, "", "run: flag provided but not defined: -fast"},
		{"no configuration", []string{"run"}, 2, "", "run: want one configuration file"},
		{"certificates for nobody", []string{"ca", "--dir", in("ca2")}, 2, "", "want --dir and at least one --host"},
		{"version with argument", []string{"version", "x"}, 2, "", "version: want no arguments"},
		{"token over another", []string{"token", in("token")}, 1, "", "file exists"},
		{"certificates over others", []string{"ca", "--dir", in("ca"), "--host", "192.0.2.1"}, 1, "", "file exists"},
		{"no such configuration", []string{"run", in("none.yaml")}, 1, "", "no such file"},
		{"wrong configuration", []string{"run", in("bad.yaml")}, 1, "", "line 10: field colour not found"},
		{"image that is not there", []string{"run", "--exit-when-done", in("noimage.yaml")}, 1, "n1       failed   image other.img", "deployment failed: n1: image other.img"},
		{"port for BitTorrent that is in use", []string{"run", "--exit-when-done", in("port.yaml")}, 1, "n1       failed   image disk.img: share it by BitTorrent", fmt.Sprintf("port %d", port)},
		{"port for BitTorrent that is none", []string{"run", in("ports.yaml")}, 1, "", "want a port"},
		{"nobody comes", []string{"run", "--timeout", "50ms", in("good.yaml")}, 1, "server   listening on 127.0.0.1:", "not done within 50ms"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), test.args, &stdout, &stderr)
			if status != test.status || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("labconductor %s = %d, want %d\nstdout: %s\nwant: %s\nstderr: %s\nwant: %s", strings.Join(test.args, " "),
					status, test.status, &stdout, test.stdout, &stderr, test.stderr)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var stdout, stderr bytes.Buffer
		if status := run(ctx, []string{"run", in("good.yaml")}, &stdout, &stderr); status != 1 {
			t.Errorf("status = %d, want 1", status)
		}
	})
	if info, err := os.Stat(in("token")); err != nil || info.Mode().Perm() != 0o600 || info.Size() != 44 {
		t.Errorf("token file: %v %v, want 44 bytes with mode 0600", info, err)
	}
}
