// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/image/volume"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const uuid = "0dd5a3e1-7c10-4a5f-9d3a-3b1f3c1c2b4d"

func certificate(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func contents(t testing.TB) Contents {
	return Contents{
		Parameters:  []Parameter{{"ipa-api-url", "https://192.0.2.1:6385,https://[2001:db8::1]:6385"}, {"ipa-debug", "1"}},
		NodeUUID:    uuid,
		Token:       "not-a-secret-0123456789",
		NetworkData: []byte(`{"links": [], "networks": [], "services": []}` + "\n"),
		CA:          certificate(t),
		Files:       map[string][]byte{"openstack/latest/meta_data.json": []byte("{}"), "ironhand/profile.yaml": []byte("x: 1\n")},
	}
}

func TestMake(t *testing.T) {
	c := contents(t)
	want := map[string][]byte{
		"parameters.txt":                            []byte("ipa-api-url=https://192.0.2.1:6385,https://[2001:db8::1]:6385\nipa-debug=1\nironhand-node-uuid=" + uuid + "\nipa-agent-token=not-a-secret-0123456789\n"),
		"openstack/latest/network_data.json":        c.NetworkData,
		"openstack/latest/meta_data.json":           []byte("{}"),
		"etc/ironic-python-agent/ironic.crt":        c.CA,
		"etc/ironic-python-agent.d/ironic-tls.conf": []byte("[DEFAULT]\ncafile = /etc/ironic-python-agent/ironic.crt\n"),
		"ironhand/profile.yaml":                     []byte("x: 1\n"),
	}
	for _, kind := range []string{Floppy, USB, CD} {
		t.Run(kind, func(t *testing.T) {
			b, err := Make(kind, c)
			must(t, err)
			if again, err := Make(kind, c); err != nil || !bytes.Equal(b, again) {
				t.Errorf("two media of the same contents differ, error %v", err)
			}
			if kind == Floppy && len(b) != 1440*1024 {
				t.Errorf("%d bytes, want 1474560", len(b))
			}
			dir := t.TempDir()
			image := filepath.Join(dir, "image")
			must(t, os.WriteFile(image, b, 0o600))
			out := filepath.Join(dir, "out")
			must(t, os.Mkdir(out, 0o755))
			const label = "LABEL=ir-vfd-dev\n"
			if kind == CD {
				run(t, "xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", out)
			} else {
				run(t, "fsck.fat", "-n", image)
				run(t, "mcopy", "-s", "-i", image, "::/", out)
			}
			if got := run(t, "blkid", "-p", "-o", "export", image); !strings.Contains(got, label) {
				t.Errorf("blkid says %q, want %q", got, label)
			}
			for name, want := range want {
				got, err := os.ReadFile(filepath.Join(out, name))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s = %q, %v, want %q", name, got, err, want)
				}
			}
			if n := strings.Count(run(t, "find", out, "-type", "f"), "\n"); n != len(want) {
				t.Errorf("%d files, want %d", n, len(want))
			}
		})
	}
}

// run runs a judge, or skips where it is not installed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		out, err := exec.Command(path, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	t.Skipf("SKIPPED: %s is not installed", name)
	return ""
}

func TestMakeRefuses(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	for _, c := range []struct {
		name, kind string
		change     func(c *Contents)
		want       string
	}{
		{"unknown kind", "tape", func(*Contents) {}, `type "tape": want floppy, usb or cd`},
		{"nothing", Floppy, func(c *Contents) { *c = Contents{} }, "nothing to put on it"},
		{"too much for a floppy", Floppy, func(c *Contents) {
			c.Files["ironhand/a"], c.Files["ironhand/b"] = make([]byte, 1<<20), make([]byte, 1<<20)
		}, "the FAT volume has room for 1457664"},
		{"file too large to be read", USB, func(c *Contents) { c.Files["ironhand/a"] = make([]byte, 1<<20+1) }, "1048577 bytes of 1048576"},
		{"too much to be read", USB, func(c *Contents) {
			for i := range 5 {
				c.Files[fmt.Sprintf("ironhand/%d", i)] = make([]byte, 1<<20-1)
			}
		}, "more than a configuration medium may have"},
		{"too many files to be read", CD, func(c *Contents) {
			for i := range 65 {
				c.Files[fmt.Sprintf("ironhand/%d", i)] = nil
			}
		}, "64 files"},
		{"too deep to be read", Floppy, func(c *Contents) { c.Files["ironhand/2/3/4/5/6/7/8/9"] = nil }, "8 levels"},
		{"file that the agent does not read", Floppy, func(c *Contents) { c.Files["etc/passwd"] = nil }, "not one that the agent reads"},
		{"file that leads out", Floppy, func(c *Contents) { c.Files["ironhand/../../x"] = nil }, "not a clean relative path"},
		{"file given twice", Floppy, func(c *Contents) { c.Files[NetworkDataFile] = nil }, "there twice"},
		{"network data is no JSON", Floppy, func(c *Contents) { c.NetworkData = []byte("{") }, "network data: unexpected end"},
		{"network data is a list", Floppy, func(c *Contents) { c.NetworkData = []byte("[]") }, "network data"},
		{"certificate is text", Floppy, func(c *Contents) { c.CA = []byte("text") }, "no PEM certificate"},
		{"certificate is damaged", Floppy, func(c *Contents) {
			c.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
		}, "certificate 1"},
		{"private key with the certificate", Floppy, func(c *Contents) {
			c.CA = append(c.CA, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)
		}, "only certificates are allowed"},
		{"UUID", Floppy, func(c *Contents) { c.NodeUUID = "node-1" }, `node UUID "node-1"`},
		{"token with a line break", Floppy, func(c *Contents) { c.Token = "hush\nhush" }, "ipa-agent-token: has the character"},
		{"value with a space", Floppy, func(c *Contents) { c.Parameters[0].Value = "a b" }, "ipa-api-url: has the character ' '"},
		{"key with a space", Floppy, func(c *Contents) { c.Parameters[0].Key = "a b" }, "with the character ' '"},
		{"parameter given twice", Floppy, func(c *Contents) { c.Parameters[1] = Parameter{NodeUUIDKey, uuid} }, "given twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			what := contents(t)
			c.change(&what)
			_, err := Make(c.kind, what)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "not-a-secret") || strings.Contains(err.Error(), "hush") {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
}

func TestParseParameters(t *testing.T) {
	many := strings.Builder{}
	for i := range 257 {
		fmt.Fprintf(&many, "k%d=v ", i)
	}
	for _, c := range []struct {
		name, text string
		want       map[string]string
		err        string
	}{
		{name: "empty", text: "", want: map[string]string{}},
		{name: "as Ironic writes it", text: "ipa-api-url=https://192.0.2.1:6385\nipa-agent-token=t0ken\n", want: map[string]string{"ipa-api-url": "https://192.0.2.1:6385", "ipa-agent-token": "t0ken"}},
		{name: "one line, tabs, Windows", text: "\ufeffa=1\tb.c_d=2  \r\nc=3\r\n", want: map[string]string{"a": "1", "b.c_d": "2", "c": "3"}},
		{name: "later wins", text: "a=1\na=2", want: map[string]string{"a": "2"}},
		{name: "equals signs in a value", text: "a=b=c==", want: map[string]string{"a": "b=c=="}},
		{name: "empty value", text: "a=", want: map[string]string{"a": ""}},
		{name: "UTF-8 value", text: "name=größe", want: map[string]string{"name": "größe"}},
		{name: "value cut by a line break", text: "a=1\nipa-agent-token=s3cr\nhush\n", err: `parameters.txt line 3: a word without "="`},
		{name: "no key", text: "a=1\n=s3cret", err: "line 2: a key of 0 characters"},
		{name: "comment", text: "# token=s3cret", err: `line 1: a word without "="`},
		{name: "key with a quote", text: `"a=s3cret"`, err: `line 1: a key with the character '"'`},
		{name: "key too long", text: strings.Repeat("k", 129) + "=1", err: "a key of 129 characters"},
		{name: "control character", text: "a=s3cret\x1b[2J", err: `line 1: value of a: has the character '\x1b'`},
		{name: "zero byte", text: "a=s3cret\x00", err: `has the character '\x00'`},
		{name: "invisible character", text: "a=s3cret\u200b", err: "has the character"},
		{name: "not UTF-8", text: "a=s3cret\xff", err: "value of a: is not UTF-8"},
		{name: "value too long", text: "a=" + strings.Repeat("v", 8193), err: "8193 bytes, at most 8192"},
		{name: "too many", text: many.String(), err: "more than 256 parameters"},
		{name: "too large", text: strings.Repeat(" ", 65537), err: "65537 bytes, at most 65536"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Medium{Device: "/dev/fd0", Files: map[string][]byte{ParametersFile: []byte(c.text)}}.Parameters()
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				if strings.Contains(err.Error(), "s3cr") || strings.Contains(err.Error(), "hush") {
					t.Errorf("the error holds a value: %v", err)
				}
				return
			}
			if err != nil || !maps.Equal(got, c.want) {
				t.Errorf("Parameters() = %q, %v, want %q", got, err, c.want)
			}
		})
	}
	if got, err := (Medium{}).Parameters(); got != nil || err != nil {
		t.Errorf("Parameters() of a medium without any = %v, %v", got, err)
	}
}

func FuzzParseParameters(f *testing.F) {
	f.Add([]byte("ipa-api-url=https://192.0.2.1:6385\nipa-agent-token=t0ken\n"))
	f.Add([]byte("\ufeffa=1\r\nb=größe c=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseParameters(b)
		if err != nil {
			if p != nil {
				t.Fatal("both parameters and an error")
			}
			return
		}
		// What was read can be written on a medium, and reads the same.
		var all []Parameter
		for _, key := range slices.Sorted(maps.Keys(p)) {
			all = append(all, Parameter{key, p[key]})
		}
		text, err := Contents{Parameters: all}.parameters()
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > maxParametersFile {
			return
		}
		again, err := ParseParameters(text)
		if err != nil || !maps.Equal(again, p) {
			t.Fatalf("written and read again: %q, %v, want %q", again, err, p)
		}
	})
}

func TestSaveLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ironhand")
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of nothing: %v", err)
	}
	want := []Medium{
		{Device: "/dev/fd0", Kind: Floppy, Label: "ir-vfd-dev", Files: map[string][]byte{"parameters.txt": []byte("a=1\xff")}},
		{Device: "/dev/sr0", Kind: CD, Label: "config-2", Files: map[string][]byte{NetworkDataFile: []byte("{}")}},
	}
	must(t, Save(dir, nil))
	must(t, Save(dir, want)) // again, over the first
	got, err := Load(dir)
	must(t, err)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Load = %v, want %v", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, "media.json"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	must(t, os.WriteFile(filepath.Join(dir, "media.json"), []byte("["), 0o600))
	if _, err := Load(dir); err == nil {
		t.Error("Load of a file that is cut off: no error")
	}
	if err := Save(filepath.Join(dir, "media.json"), nil); err == nil {
		t.Error("Save below a file: no error")
	}
}

// What is on a medium beside the agent's files is not read, whatever its size.
func TestReadFilesSelects(t *testing.T) {
	b, err := volume.FAT{Size: 8 << 20, Label: "L", Files: map[string][]byte{
		"PARAMETERS.TXT":                     []byte("a=1"),
		"Openstack/latest/network_data.json": []byte("{}"),
		"etc/ironic-python-agent/CA.crt":     []byte("ca"),
		"etc/passwd":                         []byte("x"),
		"huge.bin":                           make([]byte, 3<<20),
		"ironhand":                           []byte("a file in the place of a directory"),
		"a/b/c/d/e/f/g/h/i/j":                []byte("x"),
	}}.Bytes()
	must(t, err)
	v, err := volume.Open(bytes.NewReader(b))
	must(t, err)
	files, err := readFiles(v)
	must(t, err)
	got := slices.Sorted(maps.Keys(files))
	want := []string{"etc/ironic-python-agent/CA.crt", "openstack/latest/network_data.json", "parameters.txt"}
	if !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}
