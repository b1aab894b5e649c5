// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/stream/looptest"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// An image is written to a loop device by hand: only after a yes, and with a digest only if it is right.
func TestRootWrite(t *testing.T) {
	looptest.NeedRoot(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	script := `truncate -s 16M "$1" && printf 'label: gpt\nsize=8M, name=root\n' | sfdisk --quiet "$1" && head -c 4000000 /dev/urandom | dd of="$1" bs=1M seek=2 conv=notrunc status=none`
	if out, err := exec.Command("bash", "-c", script, "bash", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	right := "sha256:" + hex.EncodeToString(sum[:])
	wrong := "sha256:" + strings.Repeat("0", 64)
	for _, test := range []struct {
		name, answer string
		args         []string
		code         int
		written      bool
		says         string
	}{
		{"no", "no\n", nil, 1, false, "not yes"},
		{"nothing", "", nil, 1, false, "not yes"},
		{"yes", "yes\n", nil, 0, true, "Everything on"},
		{"asked for without question", "", []string{"--yes", "--digest", right}, 0, true, "writing"},
		{"wrong digest", "", []string{"--yes", "--digest", wrong}, 1, false, "digest does not match"},
		{"full read-back, JSON", "", []string{"--yes", "--json", "--read-back", "full", "--progress", "none"}, 0, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			device, file := looptest.New(t, 32<<20, 512)
			code, stdout, stderr := run(t, test.answer, append([]string{"write", image, device}, test.args...)...)
			if code != test.code || !strings.Contains(stderr, test.says) {
				t.Fatalf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, test.code, test.says)
			}
			disk, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// Behind the partition table everything is as in the image.
			if same := bytes.Equal(disk[2<<20:10<<20], content[2<<20:10<<20]); test.written && !same {
				t.Error("the disk does not hold the image")
			}
			out, err := exec.Command("sgdisk", "-v", file).CombinedOutput()
			if sound := err == nil && strings.Contains(string(out), "No problems found"); test.written && !sound {
				t.Errorf("sgdisk -v: %v\n%s", err, out)
			}
			if !test.written && !bytes.Equal(disk[:1<<20], make([]byte, 1<<20)) {
				t.Error("the disk has a start all the same")
			}
			if strings.Contains(strings.Join(test.args, " "), "--json") {
				var result map[string]any
				if err := json.Unmarshal([]byte(stdout), &result); err != nil || result["device"] != device || result["bytes_checked"] == 0.0 {
					t.Errorf("JSON %q: %v", stdout, err)
				}
			}
		})
	}
}

// A disk is never written onto itself, nor onto the disk that it is a part of.
func TestRootWriteOntoItself(t *testing.T) {
	looptest.NeedRoot(t)
	device, file := looptest.New(t, 32<<20, 512)
	cmd := exec.Command("bash", "-c", `printf 'label: gpt\nstart=2048, size=8M\nsize=8M\n' | sfdisk --quiet --no-tell-kernel --no-reread "$1" && partx --update "$1"`, "bash", device)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("partx", "--delete", device).Run() })
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(device, link); err != nil {
		t.Fatal(err)
	}
	other, _ := looptest.New(t, 32<<20, 512)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, source, target string
		code                 int
	}{
		{"itself", device, device, 2},
		{"by another name", link, device, 2},
		{"onto another name", device, link, 2},
		{"its partition", device + "p1", device, 2},
		{"onto its partition", device, device + "p1", 2},
		{"as a mirror", other, device, 1}, // tried, and found to be no image
		{"another partition", device + "p1", device + "p2", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := run(t, "", "write", "--yes", test.source, test.target)
			if code != test.code || strings.Contains(stderr, "on the same disk") != (code == 2) {
				t.Errorf("exit %d, %s; want %d", code, stderr, test.code)
			}
			if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the disk was touched (%v)", err)
			}
		})
	}
}

// qcow2 is written by hand, with the digest from a checksum file.
func TestRootWriteQCOW2(t *testing.T) {
	looptest.NeedRoot(t)
	dir := t.TempDir()
	script := `truncate -s 16M raw && printf 'label: gpt\nsize=8M, name=root\n' | sfdisk --quiet raw && head -c 4000000 /dev/urandom | dd of=raw bs=1M seek=2 conv=notrunc status=none &&
		qemu-img convert -q -f raw -O qcow2 -c raw image.qcow2 && sha256sum image.qcow2 >SHA256SUMS && echo "$(echo | sha256sum | cut -c1-64)  image.qcow2" >wrong`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"right", []string{"--digest", server.URL + "/SHA256SUMS", "--format", "qcow2", "--connections", "2"}, 0, ""},
		{"wrong", []string{"--digest", server.URL + "/wrong"}, 1, "digest does not match"},
		{"no checksum file", []string{"--digest", server.URL + "/none"}, 1, "404 Not Found"},
		{"said to be raw", []string{"--format", "raw"}, 1, "its bytes are qcow2"},
		{"digest of the content", []string{"--content-digest", "sha256:" + strings.Repeat("0", 64)}, 1, "cannot be checked for a qcow2 image"},
		{"no connections", []string{"--connections", "0"}, 2, "--connections 0: want 1 to 16"},
		{"no patience", []string{"--patience", "0s"}, 2, "--patience 0s"},
		{"unknown format", []string{"--format", "vmdk"}, 2, "qemu-img convert"},
	} {
		t.Run(test.name, func(t *testing.T) {
			device, file := looptest.New(t, 16<<20, 512)
			code, stdout, stderr := run(t, "", append([]string{"write", "--yes", "--json", server.URL + "/image.qcow2", device}, test.args...)...)
			if code != test.code || !strings.Contains(stderr, test.says) {
				t.Fatalf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, test.code, test.says)
			}
			if code != 0 {
				return
			}
			if out, err := exec.Command("qemu-img", "compare", "-f", "qcow2", "-F", "raw", filepath.Join(dir, "image.qcow2"), file).CombinedOutput(); err != nil {
				t.Errorf("qemu-img compare: %v: %s", err, out)
			}
			var result struct {
				Format   string
				Progress struct {
					Phase string
					Left  float64 `json:"seconds_left"`
				}
			}
			if err := json.Unmarshal([]byte(stdout), &result); err != nil || result.Format != "qcow2" || result.Progress.Phase != "done" || result.Progress.Left != 0 {
				t.Errorf("JSON %s: %v", stdout, err)
			}
		})
	}
}

// An image that minisign or openssl, as cosign does, has signed is written; one that somebody has changed, or that another key has signed, does not boot.
func TestRootWriteSigned(t *testing.T) {
	looptest.NeedRoot(t)
	dir := t.TempDir()
	script := `truncate -s 16M image && printf 'label: gpt\nsize=8M, name=root\n' | sfdisk --quiet image && head -c 4000000 /dev/urandom | dd of=image bs=1M seek=2 conv=notrunc status=none
		zstd -q image
		minisign -G -W -p mini.pub -s mini.sec >/dev/null; minisign -G -W -p other.pub -s other.sec >/dev/null
		minisign -S -s mini.sec -m image.zst -t 'version 5' </dev/null; minisign -S -l -s mini.sec -m image.zst -x legacy -t 'version 4' </dev/null
		minisign -S -s mini.sec -m image -x unpacked </dev/null
		openssl ecparam -name prime256v1 -genkey -noout -out ec.sec; openssl ec -in ec.sec -pubout -out ec.pub 2>/dev/null
		openssl dgst -sha256 -sign ec.sec image.zst | base64 -w0 >image.zst.sig; openssl dgst -sha256 -sign ec.sec image | base64 -w0 >other.sig
		openssl genpkey -algorithm ed25519 -out ed.sec; openssl pkey -in ed.sec -pubout -out ed.pub
		openssl pkeyutl -sign -rawin -inkey ed.sec -in image.zst | base64 -w0 >ed.sig`
	cmd := exec.Command("bash", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, test := range []struct {
		name, source string
		args         []string
		code         int
		says         string
		cleared      bool // the disk's ends
	}{
		{"minisign", server.URL + "/image.zst", []string{"--public-key", file("mini.pub")}, 0, `signed: "version 5"`, false},
		{"minisign, files", file("image.zst"), []string{"--public-key", file("mini.pub")}, 0, `signed: "version 5"`, false},
		{"minisign, legacy", server.URL + "/image.zst", []string{"--public-key", file("mini.pub"), "--signature", server.URL + "/legacy"}, 0, `signed: "version 4"`, false},
		{"ECDSA", server.URL + "/image.zst", []string{"--public-key", file("ec.pub")}, 0, "", false},
		{"Ed25519", server.URL + "/image.zst", []string{"--public-key", file("ed.pub"), "--signature", file("ed.sig")}, 0, "", false},

		{"minisign, of another file", server.URL + "/image.zst", []string{"--public-key", file("mini.pub"), "--signature", file("unpacked")}, 1, "the image is not the one that was signed", true},
		{"minisign, another key", server.URL + "/image.zst", []string{"--public-key", file("other.pub")}, 1, "which is not trusted", false},
		{"ECDSA, of another file", server.URL + "/image.zst", []string{"--public-key", file("ec.pub"), "--signature", file("other.sig")}, 1, "the image is not the one that was signed", true},
		{"no signature", server.URL + "/image", []string{"--public-key", file("mini.pub")}, 1, "/image.minisig: 404 Not Found", false},
		{"no signature, files", file("image"), []string{"--public-key", file("mini.pub")}, 1, "image.minisig: no such file", false},
		{"secret key", server.URL + "/image.zst", []string{"--public-key", file("ec.sec")}, 1, "is not one", false},
		{"no key", server.URL + "/image.zst", []string{"--signature", file("ed.sig")}, 2, "--signature needs --public-key", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			device, disk := looptest.New(t, 16<<20, 512)
			old := bytes.Repeat([]byte{0xa5}, 16<<20)
			if err := os.WriteFile(disk, old, 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := run(t, "", append([]string{"write", "--yes", "--progress", "none", test.source, device}, test.args...)...)
			if code != test.code || !strings.Contains(stderr, test.says) {
				t.Fatalf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, test.code, test.says)
			}
			got, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(file("image"))
			if err != nil {
				t.Fatal(err)
			}
			switch zero := make([]byte, 1<<20); {
			case code == 0 && !bytes.Equal(got, want):
				t.Error("the disk does not hold the image")
			case test.cleared && (!bytes.Equal(got[:1<<20], zero) || !bytes.Equal(got[15<<20:], zero)):
				t.Error("the ends of the disk are not zero")
			case code != 0 && !test.cleared && !bytes.Equal(got, old):
				t.Error("the disk was touched")
			}
		})
	}
}

// On a terminal of 80 columns an image's progress is one line that is drawn over; on one that does not know its width, as a serial console, and in a pipe there are lines.
func TestRootWriteProgress(t *testing.T) {
	looptest.NeedRoot(t)
	image := filepath.Join(t.TempDir(), "image")
	script := `truncate -s 64M "$1" && printf 'label: gpt\nsize=56M, name=root\n' | sfdisk --quiet "$1" && head -c 40000000 /dev/urandom | dd of="$1" bs=1M seek=2 conv=notrunc status=none`
	if out, err := exec.Command("bash", "-c", script, "bash", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		columns uint16
		how     string
		bar     bool
	}{
		{"80 columns", 80, "auto", true},
		{"40 columns", 40, "auto", true},
		{"no width", 0, "auto", false},
		{"plain", 80, "plain", false},
	} {
		t.Run(test.name, func(t *testing.T) {

			server := httptest.NewServer(&streamtest.Server{Content: content, ETag: `"1"`, Faults: []streamtest.Fault{{Cut: 4 << 20}, {BeforeAnswer: func(*http.Request) { time.Sleep(2500 * time.Millisecond) }}}})
			defer server.Close()
			device, _ := looptest.New(t, 64<<20, 512)
			terminal, shown := pty(t, test.columns)
			code := Run(t.Context(), agent.Parts{}, []string{"write", "--yes", "--connections", "1", "--progress", test.how, server.URL, device}, strings.NewReader(""), io.Discard, terminal)
			text := strings.ReplaceAll(shown(), "\r\n", "\n") // as terminals end lines
			if code != 0 || strings.Contains(text, "\r\x1b[K") != test.bar || !strings.Contains(text, "done") {
				t.Fatalf("exit %d, %q", code, text)
			}
			if test.bar {
				for line := range strings.SplitSeq(text, "\r\x1b[K") {
					if line, _, _ := strings.Cut(line, "\n"); strings.Contains(line, "[=") && len(line) >= int(test.columns) {
						t.Errorf("%q has %d columns", line, len(line))
					}
				}
			}
		})
	}
}
