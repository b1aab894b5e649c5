// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inputs makes a directory with files to build from and returns it.
func inputs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"net.json": `{"links": [{"id": "p0", "type": "phy", "ethernet_mac_address": "52:54:00:aa:bb:01"}], "networks": [
			{"id": "n0", "network_id": "x", "link": "p0", "type": "ipv4", "ip_address": "192.0.2.10", "netmask": "255.255.255.0", "routes": []}], "services": []}`,
		"wrong.json":           `{"links": "none"}`,
		"token":                "not-a-secret-0123456789\n",
		"empty":                "",
		"tree/ironhand/a.yaml": "a: 1\n",
		"other/etc/passwd":     "root\n",
		"kernel":               "kernel",
		"initramfs":            "initramfs",
		"before":               "what was there before",
		"loader":               strings.Repeat("loader", 100),
		"loader432":            strings.Repeat("loader", 72),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRun(t *testing.T) {
	const (
		iso   = "iso --kernel DIR/kernel --initramfs DIR/initramfs --out DIR/out --shim DIR/loader --grub DIR/loader --mokmanager DIR/loader --isolinux DIR/loader --ldlinux DIR/loader"
		media = "media --out DIR/out --token-file DIR/token --network-data DIR/net.json --param ipa-api-url=https://192.0.2.1:6385"
	)
	for _, c := range []struct {
		name, args     string
		status         int
		stdout, stderr string // parts of them
	}{
		{name: "nothing", args: "", status: 2, stderr: "usage: mkramdisk COMMAND"},
		{name: "help", args: "--help", stdout: "mkramdisk iso --kernel"},
		{name: "unknown command", args: "floppy", status: 2, stderr: `no command "floppy"`},
		{name: "help of initramfs", args: "initramfs --help", stdout: "Example:\n\n    apt-get download"},
		{name: "help of iso", args: "iso --help", stdout: "--shim file"},
		{name: "help of uki", args: "uki --help", stdout: "sbsign --key"},
		{name: "help of media", args: "media -h", stdout: "--token-file file"},
		{name: "help of vmlinux", args: "vmlinux --help", stdout: "usage: mkramdisk vmlinux VMLINUZ OUT"},
		{name: "unknown flag", args: "iso --color", status: 2, stderr: "flag provided but not defined: -color"},
		{name: "missing flag", args: "iso --kernel DIR/kernel --out DIR/out", status: 2, stderr: "flag --initramfs is missing"},
		{name: "argument too many", args: "media --out DIR/out more", status: 2, stderr: "1 arguments, want 0"},

		{name: "ISO", args: iso, stdout: "DIR/out: "},
		{name: "ISO with words for the kernel", args: iso + " --append a=b", stdout: "DIR/out: "},
		{name: "stick for burn-in", args: iso + " --role burnin --isohybrid DIR/loader432", stdout: "DIR/out: 73.0 MiB"},
		{name: "ISO for no role", args: iso + " --role lunch", status: 2, stderr: "--role lunch: want deploy or burnin"},
		{name: "ISO with words that loaders misread", args: iso + " --append a;b", status: 1, stderr: "character ';'"},
		{name: "ISO without a kernel", args: strings.Replace(iso, "DIR/kernel", "DIR/none", 1), status: 1, stderr: "kernel: stat"},
		{name: "ISO into no directory", args: strings.Replace(iso, "DIR/out", "DIR/none/out", 1), status: 1, stderr: "no such file or directory"},

		{name: "UKI of no kernel", args: "uki --kernel DIR/kernel --initramfs DIR/initramfs --out DIR/out --stub DIR/loader", status: 1, stderr: "/kernel: is not an EFI program"},
		{name: "UKI without a stub", args: "uki --kernel DIR/kernel --initramfs DIR/initramfs --out DIR/out --stub DIR/none", status: 1, stderr: "install the Debian package systemd-boot-efi"},

		{name: "floppy", args: media, stdout: "DIR/out: 1440.0 KiB (1474560 bytes)"},
		{name: "USB", args: media + " --type usb", stdout: "DIR/out: 8192.0 KiB"},
		{name: "ISO for one node, with a directory", args: media + " --type iso --dir DIR/tree", stdout: "DIR/out: "},
		{name: "kind of medium", args: media + " --type tape", status: 2, stderr: "--type tape: want floppy, usb or iso"},
		{name: "token on the command line", args: media + " --param ipa-agent-token=not-a-secret", status: 2, stderr: "use --token-file"},
		{name: "empty token", args: media + " --token-file DIR/empty", status: 1, stderr: "is empty"},
		{name: "no token file", args: media + " --token-file DIR/none", status: 1, stderr: "token: open"},
		{name: "parameter without a value", args: media + " --param ipa-debug", status: 2, stderr: "want KEY=VALUE"},
		{name: "wrong network data", args: media + " --network-data DIR/wrong.json", status: 1, stderr: "wrong.json: "},
		{name: "wrong UUID", args: media + " --node-uuid 1", status: 1, stderr: `node UUID "1"`},
		{name: "file that the agent does not read", args: media + " --dir DIR/other", status: 1, stderr: `"etc/passwd"`},

		{name: "kernel without a header", args: "vmlinux DIR/kernel DIR/out", status: 1, stderr: "no setup header"},
		{name: "vmlinux without arguments", args: "vmlinux", status: 2, stderr: "0 arguments, want 2"},

		{name: "agent is not a program", args: "initramfs --agent DIR/kernel --out DIR/out", status: 1, stderr: "not an ELF file"},
		{name: "unknown set", args: "initramfs --agent DIR/kernel --out DIR/out --set laptop", status: 2, stderr: `module set "laptop"`},
		{name: "file without a source", args: "initramfs --agent DIR/kernel --out DIR/out --file etc/x", status: 2, stderr: "want PATH=SOURCE"},
		{name: "firmware without modules", args: "initramfs --agent DIR/kernel --out DIR/out --firmware DIR", status: 2, stderr: "--firmware without --modules"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := inputs(t)
			var stdout, stderr bytes.Buffer
			status := run(strings.Fields(strings.ReplaceAll(c.args, "DIR", dir)), &stdout, &stderr)
			if status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			if !strings.Contains(stdout.String(), strings.ReplaceAll(c.stdout, "DIR", dir)) || (c.stdout == "") != (stdout.Len() == 0) {
				t.Errorf("stdout %q, want %q", stdout.String(), c.stdout)
			}
			if !strings.Contains(stderr.String(), c.stderr) || (c.stderr == "") != (stderr.Len() == 0) {
				t.Errorf("stderr %q, want %q", stderr.String(), c.stderr)
			}
			if strings.Contains(stdout.String()+stderr.String(), "not-a-secret") {
				t.Error("the token was printed")
			}
			// What failed leaves nothing behind.
			_, err := os.Stat(filepath.Join(dir, "out"))
			if made := err == nil; made != (strings.HasPrefix(c.stdout, "DIR/out")) {
				t.Errorf("file made: %t", made)
			}
			if left, err := filepath.Glob(filepath.Join(dir, ".out*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

// A build that fails leaves the file of an earlier one as it was.
func TestFailureKeepsFile(t *testing.T) {
	dir := inputs(t)
	out := filepath.Join(dir, "before")
	var stdout, stderr bytes.Buffer
	if status := run([]string{"media", "--out", out, "--node-uuid", "wrong"}, &stdout, &stderr); status != 1 {
		t.Fatalf("exit status %d, want 1", status)
	}
	if b, err := os.ReadFile(out); string(b) != "what was there before" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// A medium may hold a token: only its owner may read it.
func TestMediumIsPrivate(t *testing.T) {
	dir := inputs(t)
	out := filepath.Join(dir, "out")
	var stdout, stderr bytes.Buffer
	if status := run([]string{"media", "--out", out, "--token-file", filepath.Join(dir, "token")}, &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d: %s", status, &stderr)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}
