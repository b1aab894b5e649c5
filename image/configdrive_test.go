// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream"
)

func writeFile(t testing.TB, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMakeConfigDrive(t *testing.T) {
	drive := testDrive(t)
	if len(drive) > 1<<20 || len(drive)%2048 != 0 {
		t.Errorf("config drive of %d bytes of files has %d bytes", 16*9000, len(drive))
	}
	iso := writeFile(t, drive)
	if out := run(t, "", "xorriso", "-indev", iso, "-pvd_info"); !strings.Contains(out, "Volume Id    : config-2") {
		t.Errorf("xorriso: %s", out)
	}
	if out := run(t, "", "blkid", "-p", iso); !strings.Contains(out, `LABEL="config-2"`) || !strings.Contains(out, `TYPE="iso9660"`) {
		t.Errorf("blkid: %s", out)
	}
	dir := t.TempDir()
	run(t, "", "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/", dir)
	for name, want := range driveFiles() {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s holds %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	if again := testDrive(t); !bytes.Equal(again, drive) {
		t.Error("the same files give other bytes")
	}

	if _, err := MakeConfigDrive(map[string][]byte{"../x": nil}); err == nil {
		t.Error("a path that climbs is taken")
	}
	if _, err := MakeConfigDrive(map[string][]byte{"/x": nil}); err == nil {
		t.Error("an absolute path is taken")
	}
	if _, err := MakeConfigDrive(map[string][]byte{"a": nil, "a/b": nil}); err == nil {
		t.Error("a file that is a directory, too, is taken")
	}
	if _, err := MakeConfigDrive(map[string][]byte{"a": make([]byte, 65*mib)}); err == nil {
		t.Error("65 MiB are taken")
	}
}

func TestReadConfigDrive(t *testing.T) {
	drive := testDrive(t)
	text := EncodeConfigDrive(drive)
	fat := labelled(t, make([]byte, 2*mib), 0, 2*mib, "config-2")

	mux := http.NewServeMux()
	serve := func(path string, status int, body []byte) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			w.Write(body)
		})
	}
	serve("/text", 200, []byte(text))
	serve("/raw", 200, drive)
	serve("/gone", 404, []byte(text))
	serve("/long", 200, make([]byte, 65*mib))
	serve("/page", 200, []byte("<html>"))
	mux.Handle("/moved", http.RedirectHandler("/text", http.StatusFound))
	mux.Handle("/down", http.RedirectHandler("http://127.0.0.1:1/text?secret=hunter2", http.StatusFound))
	mux.Handle("/nowhere", http.RedirectHandler("ftp://hunter2/secret", http.StatusFound))
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { // to a server that must not learn whence
		if ref := r.Referer(); ref != "" {
			t.Errorf("Referer: %s", ref)
		}
		http.Redirect(w, r, "/text", http.StatusFound)
	})
	var busy atomic.Int32
	mux.HandleFunc("/busy", func(w http.ResponseWriter, r *http.Request) {
		if busy.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write(drive)
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		w.Write([]byte(text[:100]))
	})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()

	wrapped := strings.Builder{}
	for i := 0; i < len(text); i += 76 {
		wrapped.WriteString(text[i:min(i+76, len(text))] + "\n")
	}
	tests := []struct {
		name, in string
		want     []byte
		wantErr  string
	}{
		{"none", "", nil, ""},
		{"text", text, drive, ""},
		{"text in lines", wrapped.String(), drive, ""},
		{"FAT", EncodeConfigDrive(fat), fat, ""},
		{"bytes", string(drive), drive, ""},
		{"only base64", base64.StdEncoding.EncodeToString(drive), drive, ""},
		{"URL of text", server.URL + "/text?secret=hunter2", drive, ""},
		{"URL of bytes", strings.Replace(server.URL, "https", "HTTPS", 1) + "/raw", drive, ""},
		{"URL that moved", server.URL + "/moved", drive, ""},
		{"signed URL that moved", server.URL + "/away?secret=hunter2", drive, ""},
		{"URL that is busy at first", server.URL + "/busy", drive, ""},
		{"URL that moved out of TLS", server.URL + "/down", nil, "redirected to http://127.0.0.1:1/text, which is not protected"},
		{"URL that moved to nowhere", server.URL + "/nowhere", nil, "302 Found without a usable Location"},
		{"neither", "hello, world", nil, "not base64 encoded"},
		{"base64 of nothing known", base64.StdEncoding.EncodeToString([]byte("secret words")), nil, "neither ISO 9660 nor FAT"},
		{"gzip of nothing known", EncodeConfigDrive([]byte("secret words")), nil, "neither ISO 9660 nor FAT"},
		{"text is cut", text[:len(text)/2-len(text)/2%4], nil, "malformed"},
		{"bomb", EncodeConfigDrive(make([]byte, 65*mib)), nil, "more than 67108864 bytes"},
		{"URL that is gone", server.URL + "/gone?secret=hunter2", nil, "/gone: 404 Not Found"},
		{"URL of a page", server.URL + "/page", nil, "not base64 encoded"},
		{"URL of too much", server.URL + "/long", nil, "more than 67108864 bytes"},
		{"URL that breaks off", server.URL + "/cut?secret=hunter2", nil, "unexpected EOF"},
		{"URL of nobody", "http://127.0.0.1:1/x?secret=hunter2", nil, "http://127.0.0.1:1/x: "},
		{"URL that is malformed", "http://[hunter2", nil, "it is not a URL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			options := DriveOptions{HTTP: stream.HTTPOptions{Transport: server.Client().Transport}, Patience: 500 * time.Millisecond}
			got, err := ReadConfigDrive(t.Context(), tt.in, options)
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Fatalf("ReadConfigDrive: %v, want %q", err, tt.wantErr)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret")) {
				t.Errorf("error tells a secret: %v", err)
			}
			if !bytes.Equal(got, tt.want) {
				t.Errorf("ReadConfigDrive gives %d bytes, want %d", len(got), len(tt.want))
			}
		})
	}
	// A certificate that is not known is an error, too.
	stranger := DriveOptions{HTTP: stream.HTTPOptions{Transport: &http.Transport{TLSClientConfig: &tls.Config{}}}}
	if _, err := ReadConfigDrive(t.Context(), server.URL+"/text", stranger); err == nil {
		t.Error("a server with an unknown certificate is believed")
	}
}

// For sectors of 4096 bytes the config drive becomes FAT, of which other programs have the same opinion.
func TestFitConfigDrive(t *testing.T) {
	drive := testDrive(t)
	for _, size := range []int64{configDriveSize, 1 << 30, 4 * mib, 16*mib + 20*4096} {
		fat, err := fitConfigDrive(drive, 4096, size)
		if err != nil {
			t.Fatal(err)
		}
		name := writeFile(t, fat)
		if err := os.Truncate(name, size); err != nil {
			t.Fatal(err)
		}
		if out := run(t, "", "blkid", "-p", name); !strings.Contains(out, `LABEL="CONFIG-2"`) || !strings.Contains(out, `TYPE="vfat"`) {
			t.Errorf("%d bytes: blkid: %s", size, out)
		}
		if out := run(t, "", "fsck.vfat", "-n", "-v", name); !strings.Contains(out, "4096 bytes per logical sector") {
			t.Errorf("%d bytes: fsck.vfat: %s", size, out)
		}
		for file, want := range driveFiles() {
			to := filepath.Join(t.TempDir(), "out")
			run(t, "", "mcopy", "-i", name, "::"+file, to)
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: %s has %d bytes, %v, want %d", size, file, len(got), err, len(want))
			}
		}
		if f, err := Probe(bytes.NewReader(fat), int64(len(fat))); err != nil || f.Type != "vfat" || f.Label != "CONFIG-2" {
			t.Errorf("%d bytes: Probe() = %+v, %v", size, f, err)
		}
	}

	if same, err := fitConfigDrive(drive, 512, configDriveSize); err != nil || !bytes.Equal(same, drive) {
		t.Errorf("for sectors of 512 bytes it changes: %v", err)
	}
	small := labelled(t, make([]byte, 2*mib), 0, 2*mib, "config-2")
	if _, err := fitConfigDrive(small, 4096, configDriveSize); err == nil {
		t.Error("FAT with sectors of 512 bytes is taken for a disk with sectors of 4096")
	}
	if _, err := fitConfigDrive(drive, 4096, 100<<10); err == nil {
		t.Error("the files are said to fit into 100 KiB")
	}
	broken := bytes.Clone(drive)
	copy(broken[16*2048+156+2:], "\xff\xff\xff\xff")
	if _, err := fitConfigDrive(broken, 4096, configDriveSize); err == nil {
		t.Error("a root directory outside the image is taken")
	}
}

func FuzzDecodeConfigDrive(f *testing.F) {
	drive, err := MakeConfigDrive(map[string][]byte{"a/b": []byte("c")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(EncodeConfigDrive(drive)))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := decodeConfigDrive(b); err == nil && !isFileSystem(got) {
			t.Error(fmt.Sprint("result is no file system: ", len(got), " bytes"))
		}
	})
}
