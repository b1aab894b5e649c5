// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/klauspost/compress/zstd"
)

// judge finds a program that checks our work, or skips where it is not installed.
func judge(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	t.Skipf("SKIPPED: %s is not installed", name)
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, b []byte, perm os.FileMode) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, b, perm))
	return path
}

func bytesOf(t *testing.T, a *Archive) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := a.WriteTo(&b)
	must(t, err)
	if n != int64(b.Len()) {
		t.Errorf("WriteTo = %d, wrote %d", n, b.Len())
	}
	return b.Bytes()
}

func TestArchive(t *testing.T) {
	cpio := judge(t, "cpio")
	var a Archive
	source := write(t, filepath.Join(t.TempDir(), "source"), []byte("from a file"), 0o600)
	must(t, a.Dir("tmp", 0o777))
	must(t, a.File("usr/share/file", 0o644, source))
	must(t, a.Bytes("init", 0o755, []byte("#!/bin/sh\n")))
	must(t, a.Bytes("empty", 0o600, nil))
	must(t, a.Link("bin", "usr/bin"))
	must(t, a.CharDevice("dev/console", 0o600, 5, 1))
	must(t, a.Dir("usr", 0o755)) // there already
	b := bytesOf(t, &a)
	if len(b)%512 != 0 {
		t.Errorf("%d bytes are not a multiple of 512", len(b))
	}
	cmd := exec.Command(cpio, "--list", "--verbose", "--numeric-uid-gid", "--quiet")
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.CombinedOutput()
	must(t, err)
	const want = `lrwxrwxrwx   1 0        0               7 Jan  1  1970 bin -> usr/bin
drwxr-xr-x   2 0        0               0 Jan  1  1970 dev
crw-------   1 0        0          5,   1 Jan  1  1970 dev/console
-rw-------   1 0        0               0 Jan  1  1970 empty
-rwxr-xr-x   1 0        0              10 Jan  1  1970 init
drwxrwxrwx   2 0        0               0 Jan  1  1970 tmp
drwxr-xr-x   2 0        0               0 Jan  1  1970 usr
drwxr-xr-x   2 0        0               0 Jan  1  1970 usr/share
-rw-r--r--   1 0        0              11 Jan  1  1970 usr/share/file
`
	if string(out) != want {
		t.Errorf("cpio --list:\n%s\nwant:\n%s", out, want)
	}
	cmd = exec.Command(cpio, "--extract", "--quiet", "--to-stdout", "usr/share/file", "init")
	cmd.Stdin = bytes.NewReader(b)
	out, err = cmd.Output()
	must(t, err)
	if string(out) != "#!/bin/sh\nfrom a file" {
		t.Errorf("cpio --extract = %q", out)
	}
}

func TestArchiveRefuses(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "file"), []byte("abc"), 0o600)
	for _, c := range []struct {
		name string
		add  func(a *Archive) error
		want string
	}{
		{"same name twice", func(a *Archive) error { return errors.Join(a.Bytes("a", 0o644, nil), a.Bytes("a", 0o644, nil)) }, "there already"},
		{"file as directory", func(a *Archive) error { return errors.Join(a.Bytes("a", 0o644, nil), a.Bytes("a/b", 0o644, nil)) }, `"a" is not a directory`},
		{"directory with other permissions", func(a *Archive) error { return errors.Join(a.Dir("a", 0o700), a.Dir("a", 0o755)) }, "there already"},
		{"absolute path", func(a *Archive) error { return a.Bytes("/a", 0o644, nil) }, "not a clean relative path"},
		{"path that leads out", func(a *Archive) error { return a.Bytes("../a", 0o644, nil) }, "not a clean relative path"},
		{"no path", func(a *Archive) error { return a.Bytes("", 0o644, nil) }, "not a clean relative path"},
		{"no such file", func(a *Archive) error { return a.File("a", 0o644, file+"x") }, "no such file"},
		{"directory as file", func(a *Archive) error { return a.File("a", 0o644, filepath.Dir(file)) }, "not a regular file"},
		{"file shrinks", func(a *Archive) error {
			must(t, a.File("a", 0o644, file))
			must(t, os.WriteFile(file, []byte("ab"), 0o600))
			_, err := a.WriteTo(io.Discard)
			return err
		}, "shrunk"},
		{"file grows", func(a *Archive) error {
			must(t, a.File("a", 0o644, file))
			must(t, os.WriteFile(file, []byte("abcdef"), 0o600))
			_, err := a.WriteTo(io.Discard)
			return err
		}, "grown"},
		{"writer is full", func(a *Archive) error {
			must(t, a.Bytes("a", 0o644, make([]byte, 3<<20)))
			_, err := a.WriteTo(full{})
			return err
		}, "no space"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.add(&Archive{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// static is a static program: a test binary is one where it was built without cgo.
func static(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/marker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func TestBuild(t *testing.T) {
	agent := static(t)
	modules := moduleTree(t, kernelModules())
	extra := write(t, filepath.Join(t.TempDir(), "conf"), []byte("key=value\n"), 0o600)
	spec := Spec{
		Agent: agent, Modules: modules, Set: Set{Names: []string{"ext4", "nothing"}},
		Files: map[string]string{"etc/ironhand.conf": extra}, Compression: Fast,
	}
	var first, second bytes.Buffer
	report, err := Build(&first, spec)
	must(t, err)
	if _, err := Build(&second, spec); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(first.Bytes()) != sha256.Sum256(second.Bytes()) {
		t.Error("two builds of the same contents differ")
	}
	if report.Kernel != "6.1.0-test" || report.Modules != 5 || len(report.Absent) != 1 || report.Written != int64(first.Len()) || first.Len()%512 != 0 {
		t.Errorf("report %+v of %d bytes", report, first.Len())
	}
	d, err := zstd.NewReader(bytes.NewReader(bytes.TrimRight(first.Bytes(), "\x00")), zstd.WithDecoderMaxWindow(zstdWindow))
	must(t, err)
	defer d.Close()
	raw, err := io.ReadAll(d)
	must(t, err)
	if int64(len(raw)) != report.Raw {
		t.Errorf("unpacked %d bytes, report says %d", len(raw), report.Raw)
	}
	cmd := exec.Command(judge(t, "cpio"), "--list", "--quiet")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	must(t, err)
	for _, name := range []string{"init", "dev/console", "etc/ironhand.conf", "lib/modules/6.1.0-test/kernel/fs/ext4/ext4.ko", "lib/modules/6.1.0-test/modules.alias"} {
		if !strings.Contains("\n"+string(out), "\n"+name+"\n") {
			t.Errorf("no %s in the archive:\n%s", name, out)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	agent := static(t)
	text := write(t, filepath.Join(t.TempDir(), "text"), []byte("#!/bin/sh\n"), 0o755)
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		spec Spec
		want string
	}{
		{"no agent", Spec{Agent: "/nonexistent"}, "no such file"},
		{"agent is a script", Spec{Agent: text}, "not an ELF file"},
		{"agent is dynamic", Spec{Agent: "/bin/ls"}, "CGO_ENABLED=0"},
		{"no modules there", Spec{Agent: agent, Modules: empty}, "read kernel modules"},
		{"no such firmware directory", Spec{Agent: agent, Modules: moduleTree(t, kernelModules()), Firmware: "/nonexistent"}, "firmware: stat /nonexistent"},
		{"tools are missing", Spec{Agent: agent, Tools: tool.Deploy(), Root: empty}, "install the Debian package busybox-static"},
		{"file in the place of another", Spec{Agent: agent, Files: map[string]string{"init": text}}, "there already"},
		{"unknown compression", Spec{Agent: agent, Compression: "lzma"}, "want none, fast or best"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.spec.Compression == "" {
				c.spec.Compression = None
			}
			if _, err := Build(io.Discard, c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
