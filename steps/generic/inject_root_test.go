// SPDX-License-Identifier: Apache-2.0

//go:build linux

package generic

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/looptest"
)

// program runs a program that judges or makes disks.
func program(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// injectionDevice is a disk: 1 holds no file system, 2 ext4 with /boot, labelled boot, 3 xfs with /etc, labelled root, 4 ext4 without anything.
func injectionDevice(t *testing.T) string {
	t.Helper()
	device, _ := looptest.New(t, 600<<20, 512)
	program(t, "label: gpt\nstart=2048, size=20480\nsize=65536\nsize=720896\nsize=65536\n", "sfdisk", "-q", "--no-tell-kernel", "--no-reread", device)
	program(t, "", "partx", "--update", device)
	t.Cleanup(func() { program(t, "", "partx", "--delete", device) })
	dir := t.TempDir()
	for name, content := range map[string]string{"/etc/hostname": "old", "/etc/kept/x": "", "/boot/x": ""} {
		if err := os.MkdirAll(dir+name[:strings.LastIndex(name, "/")], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program(t, "", "mkfs.ext4", "-q", "-F", "-L", "boot", "-U", "6f1f64b5-2a8f-4f4a-8f0e-3c1b7d2e9a10", device+"p2")
	program(t, "", "mkfs.xfs", "-q", "-L", "root", device+"p3")
	program(t, "", "mkfs.ext4", "-q", "-F", device+"p4")
	mnt := t.TempDir()
	program(t, "", "mount", device+"p2", mnt)
	program(t, "", "cp", "-a", dir+"/boot", mnt)
	program(t, "", "umount", mnt)
	program(t, "", "mount", device+"p3", mnt)
	program(t, "", "cp", "-a", dir+"/etc", mnt)
	for from, to := range map[string]string{"etc/out": "/tmp", "etc/up": "../../../../../tmp", "etc/link": "hostname"} {
		if err := os.Symlink(to, mnt+"/"+from); err != nil {
			t.Fatal(err)
		}
	}
	program(t, "", "mkfifo", mnt+"/etc/pipe")
	program(t, "", "umount", mnt)
	return device
}

func TestRootInjectFiles(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, "from %s", r.URL.Path)
	}))
	t.Cleanup(server.Close)
	tests := []struct {
		name, files, more string // one entry, and what else is in the request
		partition         int
		look, want        string // a command below its mount point, and what it prints
		err               string
		is                error
	}{
		{"by the first directory", `{"path": "/etc/hostname", "content": "bmV3"}`, "", 3, "cat etc/hostname; stat -c ' %a' etc/hostname", "new 600\n", "", nil},
		{"in another partition", `{"path": "/boot/grub/a", "content": "YQ==", "mode": 384, "dirmode": 448, "owner": 12, "group": 34}`, "", 2, "cat boot/grub/a; stat -c ' %a %u %g' boot/grub/a; stat -c %a boot/grub boot", "a 600 12 34\n700\n755\n", "", nil},
		{"a directory that was there keeps its mode", `{"path": "/etc/kept/a", "content": "YQ==", "dirmode": 448}`, "", 3, "stat -c %a etc/kept etc/kept/a", "755\n644\n", "", nil},
		{"set-user-ID", `{"path": "/etc/a", "content": "YQ==", "mode": 2541, "owner": 5}`, "", 3, "stat -c '%a %u' etc/a", "4755 5\n", "", nil},
		{"partition by number", `{"path": "/a", "partition": 4, "content": "YQ=="}`, "", 4, "cat a", "a", "", nil},
		{"partition by number, a text", `{"path": "/new/dir/a", "partition": "4", "content": ""}`, "", 4, "stat -c '%s %a' new/dir/a; stat -c %a new new/dir", "0 644\n755\n755\n", "", nil},
		{"partition by path", `{"path": "/a", "partition": "DEVICEp2", "content": "YQ=="}`, "", 2, "cat a", "a", "", nil},
		{"partition by label", `{"path": "/a", "partition": "LABEL=root", "content": "YQ=="}`, "", 3, "cat a", "a", "", nil},
		{"partition by UUID", `{"path": "/a", "partition": "UUID=6F1F64B5-2A8F-4F4A-8F0E-3C1B7D2E9A10", "content": "YQ=="}`, "", 2, "cat a", "a", "", nil},
		{"deleted", `{"path": "/etc/hostname", "deleted": true}`, "", 3, "ls etc/hostname 2>&1 || true", "ls: cannot access 'etc/hostname': No such file or directory\n", "", nil},
		{"deleted already", `{"path": "/etc/nothing", "deleted": true}`, "", 3, "cat etc/hostname", "old", "", nil},
		{"a link inside", `{"path": "/etc/link", "content": "bmV3"}`, "", 3, "cat etc/hostname", "new", "", nil},
		{"from a URL", `{"path": "/etc/a", "content": "SERVER/{node[uuid]}/x"}`, "", 3, "cat etc/a", "from /n1/x", "", nil},
		{"from a URL that is not trusted, which does not matter", `{"path": "/etc/a", "content": "SERVER/x"}`, `, "verify_ca": false`, 3, "cat etc/a", "from /x", "", nil},

		{"from a URL that is not trusted", `{"path": "/etc/a", "content": "SERVER/x"}`, "", 3, "ls etc/a 2>/dev/null || echo none", "none\n", "process file /etc/a: ", nil},
		{"nothing at the URL", `{"path": "/etc/a", "content": "SERVER/gone"}`, "", 3, "ls etc/a 2>/dev/null || echo none", "none\n", "404 Not Found", nil},
		{"no such directory anywhere", `{"path": "/srv/a", "content": "YQ=="}`, "", 3, "ls", "etc\n", "no file system on DEVICE has the first directory", steps.ErrPartition},
		{"no such partition", `{"path": "/srv/a", "partition": 9, "content": "YQ=="}`, "", 3, "ls", "etc\n", "DEVICE has no partition 9", steps.ErrPartition},
		{"no such label", `{"path": "/srv/a", "partition": "LABEL=x", "content": "YQ=="}`, "", 3, "ls", "etc\n", "DEVICE has no partition LABEL=x", steps.ErrPartition},
		{"no file system", `{"path": "/a", "partition": 1, "content": "YQ=="}`, "", 3, "ls", "etc\n", "there is no file system on it", steps.ErrPartition},
		{"a link that leads out", `{"path": "/etc/out/ironhand-test", "content": "YQ=="}`, "", 3, "ls /tmp/ironhand-test 2>/dev/null || echo none", "none\n", "path escapes", nil},
		{"a link that climbs out", `{"path": "/etc/up/ironhand-test", "content": "YQ=="}`, "", 3, "ls /tmp/ironhand-test 2>/dev/null || echo none", "none\n", "path escapes", nil},
		{"a pipe", `{"path": "/etc/pipe", "content": "YQ=="}`, "", 3, "ls etc/pipe", "etc/pipe\n", "is not a regular file", nil},
		{"a directory", `{"path": "/etc/kept", "content": "YQ=="}`, "", 3, "ls etc/kept", "x\n", "is not a regular file", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			device := injectionDevice(t)
			fill := strings.NewReplacer("DEVICE", device, "SERVER", server.URL)
			trusted := server.Client().Transport
			if strings.Contains(test.name, "not trusted") {
				trusted = &http.Transport{}
			}
			said := ""
			h := steps.Host{
				Local: true, Tools: tool.Exec{}, Transport: trusted, Log: slog.New(slog.DiscardHandler),
				Open:     func(path string) (steps.Disk, error) { return stream.OpenDevice(path) },
				Say:      func(format string, args ...any) { said += fmt.Sprintf(format, args...) + "\n" },
				Download: steps.Download{Stall: 5 * time.Second, Budget: 200 * time.Millisecond},
			}
			j := steps.Job{Deployed: &steps.Deployed{Disk: device}, Args: json.RawMessage(fill.Replace(`{"files": [` + test.files + `]` + test.more + `}`))}
			if err := json.Unmarshal([]byte(`{"uuid": "n1"}`), &j.Node); err != nil {
				t.Fatal(err)
			}
			_, err := injectFiles(t.Context(), h, j)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), fill.Replace(test.err)) || test.is != nil && !errors.Is(err, test.is)) {
				t.Fatalf("injectFiles() = %v, want %q", err, test.err)
			}
			mnt := t.TempDir()
			program(t, "", "mount", "-o", "ro", fmt.Sprintf("%sp%d", device, test.partition), mnt)
			defer program(t, "", "umount", mnt)
			if got := program(t, "", "sh", "-c", "cd "+mnt+" && rmdir lost+found 2>/dev/null; "+test.look); got != test.want {
				t.Errorf("%s: %q, want %q; said\n%s", test.look, got, test.want, said)
			}
		})
	}
}

// A device without partitions, as a logical volume is one, is a file system by itself.
func TestRootInjectFilesVolume(t *testing.T) {
	for _, test := range []struct{ name, file, want, err string }{
		{"by the first directory", `{"path": "/lost+found/a", "content": "YQ=="}`, "a", ""},
		{"by label", `{"path": "/lost+found/a", "partition": "LABEL=root", "content": "YQ=="}`, "a", ""},
		{"by number", `{"path": "/lost+found/a", "partition": 1, "content": "YQ=="}`, "none\n", "has no partition 1"},
		{"no such directory", `{"path": "/etc/a", "content": "YQ=="}`, "none\n", "no file system on DEVICE has the first directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			device, _ := looptest.New(t, 64<<20, 512)
			program(t, "", "mkfs.ext4", "-q", "-F", "-L", "root", device)
			h := steps.Host{
				Local: true, Tools: tool.Exec{}, Log: slog.New(slog.DiscardHandler), Say: func(string, ...any) {},
				Open: func(path string) (steps.Disk, error) { return stream.OpenDevice(path) },
			}
			j := steps.Job{Deployed: &steps.Deployed{Disk: device}, Args: json.RawMessage(`{"files": [` + test.file + `]}`)}
			_, err := injectFiles(t.Context(), h, j)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(test.err, "DEVICE", device))) {
				t.Errorf("injectFiles() = %v, want %q", err, test.err)
			}
			mnt := t.TempDir()
			program(t, "", "mount", "-o", "ro", device, mnt)
			defer program(t, "", "umount", mnt)
			if got := program(t, "", "sh", "-c", "cat "+mnt+"/lost+found/a 2>/dev/null || echo none"); got != test.want {
				t.Errorf("there is %q, want %q", got, test.want)
			}
		})
	}
}
