// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var checksumSeeds = []struct {
	name, text, file string
	want             string // "" for an error
	err              string
	algorithm        string
}{
	{"alone", strings.Repeat("ab", 32) + "\n", "a", "sha256:" + strings.Repeat("ab", 32), "", ""},
	{"alone, upper case, blank lines", "\n  " + strings.Repeat("AB", 64) + " \r\n\n", "a", "sha512:" + strings.Repeat("ab", 64), "", ""},
	{"alone, MD5", strings.Repeat("12", 16), "a", "md5:" + strings.Repeat("12", 16), "", ""},
	{"list", strings.Repeat("11", 32) + "  other.img\n" + strings.Repeat("22", 32) + "  a.img\n", "a.img", "sha256:" + strings.Repeat("22", 32), "", ""},
	{"list, binary", strings.Repeat("22", 32) + " *a.img\n", "a.img", "sha256:" + strings.Repeat("22", 32), "", ""},
	{"list, in this directory", strings.Repeat("22", 32) + "  ./a.img\n", "a.img", "sha256:" + strings.Repeat("22", 32), "", ""},
	{"list, first that has one", "see a.img\n" + strings.Repeat("22", 32) + " a.img\n" + strings.Repeat("33", 32) + " a.img\n", "a.img", "sha256:" + strings.Repeat("22", 32), "", ""},
	{"BSD", "SHA512 (a.img) = " + strings.Repeat("44", 64), "a.img", "sha512:" + strings.Repeat("44", 64), "", ""},
	{"comment", "# " + strings.Repeat("22", 32) + " a.img\n" + strings.Repeat("33", 32) + " a.img\n", "a.img", "sha256:" + strings.Repeat("33", 32), "", ""},
	{"signed", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# a.img: 5 bytes\nSHA256 (a.img) = " + strings.Repeat("33", 32) + "\n-----BEGIN PGP SIGNATURE-----\n\niQIz\n", "a.img", "sha256:" + strings.Repeat("33", 32), "", ""},
	{"name is no pattern", strings.Repeat("22", 32) + "  aximg\n" + strings.Repeat("33", 32) + "  a.img\n", "a.img", "sha256:" + strings.Repeat("33", 32), "", ""},
	{"list, first that has an acceptable one", strings.Repeat("11", 16) + "  a.img\n" + strings.Repeat("22", 32) + "  a.img\n" + strings.Repeat("33", 64) + "  a.img\n" + strings.Repeat("44", 32) + "  a.img\n", "a.img", "sha256:" + strings.Repeat("22", 32), "", "SHA256"},
	{"list, the longest", strings.Repeat("11", 16) + "  a.img\n" + strings.Repeat("22", 32) + "  a.img\n" + strings.Repeat("33", 64) + "  a.img\n" + strings.Repeat("44", 32) + "  a.img\n", "a.img", "sha512:" + strings.Repeat("33", 64), "", ""},
	{"BSD, as asked for", "SHA512 (a.img) = " + strings.Repeat("44", 64) + "\nSHA-256 (a.img) = " + strings.Repeat("55", 32), "a.img", "sha256:" + strings.Repeat("55", 32), "", "sha256"},
	{"BSD, others of that length", "BLAKE2b (a.img) = " + strings.Repeat("44", 64) + "\nSHA512/256 (a.img) = " + strings.Repeat("66", 32) + "\nSHA256 (a.img) = " + strings.Repeat("55", 32), "a.img", "sha256:" + strings.Repeat("55", 32), "", ""},

	{"empty", " \n\n", "a", "", "it is empty", ""},
	{"alone, of no known length", "abcdef", "a", "", "no known algorithm has 6 digits", ""},
	{"alone, a word", "moved", "a", "", "not hexadecimal", ""},
	{"another name", strings.Repeat("22", 32) + "  b.img\n", "a.img", "", `checksum file does not contain name "a.img"`, ""},
	{"end of another name", strings.Repeat("22", 32) + "  data.img\n", "a.img", "", "does not contain name", ""},
	{"in another directory", strings.Repeat("22", 32) + "  old/a.img\n", "a.img", "", "does not contain name", ""},
	{"only the name", "a.img\nb.img\n", "a.img", "", "does not contain name", ""},
	{"no name", strings.Repeat("22", 32) + "  b.img\n", "", "", "no name to look for", ""},
	{"too long", strings.Repeat("x\n", 1<<20), "a", "", "longer than 1048576 bytes", ""},
	{"alone, of another algorithm", strings.Repeat("12", 16), "a", "", "32 digits, sha512 has 128", "sha512"},
	{"list, of another algorithm", strings.Repeat("22", 16) + "  a.img\n", "a.img", "", "with a digest of sha256", "sha256"},
	{"web page", "<!DOCTYPE html>\n<html>please log in</html>\n", "a.img", "", "does not contain name", ""},
}

func TestParseChecksums(t *testing.T) {
	for _, tt := range checksumSeeds {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseChecksums([]byte(tt.text), tt.algorithm, tt.file)
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("ParseChecksums() = %v, %v, want an error with %q", d, err, tt.err)
				}
				return
			}
			if err != nil || d.String() != tt.want {
				t.Errorf("ParseChecksums() = %v, %v, want %s", d, err, tt.want)
			}
		})
	}
}

// The files of the programs that make them are understood.
func TestParseChecksumsOfPrograms(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.img", "b.img", "a name.img"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range []string{"md5sum *", "sha1sum *", "sha256sum *", "sha512sum -b ./*", "sha256sum --tag *", "md5sum --tag *", "b2sum --tag *; sha256sum --tag *", "md5sum *; sha512sum *"} {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a.img", "b.img", "a name.img"} {
			d, err := ParseChecksums(out, "", name)
			if err != nil {
				t.Errorf("%s: %s: %v", command, name, err)
				continue
			}
			h := d.hash()
			h.Write([]byte(name))
			if err := d.check(h); err != nil {
				t.Errorf("%s: %s: %v", command, name, err)
			}
		}
	}
}

func FuzzParseChecksums(f *testing.F) {
	for _, tt := range checksumSeeds[:22] {
		f.Add([]byte(tt.text), tt.algorithm, tt.file)
	}
	f.Fuzz(func(t *testing.T, text []byte, algorithm, name string) {
		d, err := ParseChecksums(text, algorithm, name)
		if err != nil {
			return
		}
		if _, err := ParseDigest(d.Algorithm, d.Hex); err != nil || !strings.Contains(strings.ToLower(string(text)), d.Hex) {
			t.Errorf("ParseChecksums(%q, %q, %q) = %v, %v", text, algorithm, name, d, err)
		}
	})
}
