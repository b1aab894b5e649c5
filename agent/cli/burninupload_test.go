// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps/burnin"
)

// A report is sent whole, with its length, to whom it is meant for and nobody else; what goes wrong is said without what is secret.
func TestUpload(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "report")
	d, err := burnin.MakeReportDir(dir, "VERSION")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(found(burnin.Pass), inspect.Inventory{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Logs(), "1-disk.log"), bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(d.Logs(), "link")); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []byte
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		user, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/elsewhere":
			http.Redirect(w, r, "/reports/x.tar", http.StatusTemporaryRedirect)
		case r.URL.Path == "/full":
			w.WriteHeader(http.StatusInsufficientStorage)
		case r.URL.Path == "/cut":
			panic(http.ErrAbortHandler)
		case r.Method != http.MethodPut || r.URL.Query().Get("sig") != "secret" || user+password != "mehidden" || r.ContentLength <= 0:
			http.Error(w, fmt.Sprintf("%s %d", r.Method, r.ContentLength), http.StatusForbidden)
		default:
			if b, err := io.ReadAll(r.Body); err == nil && int64(len(b)) == r.ContentLength {
				got = b
			}
			w.WriteHeader(http.StatusCreated)
		}
	})
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, path, ca, want string }{
		{"good", "/reports/x.tar", ca, ""},
		{"a certificate of nobody", "/reports/x.tar", "", "certificate"},
		{"sent elsewhere", "/elsewhere", ca, "the server says 307"},
		{"no room", "/full", ca, "the server says 507"},
		{"the server hangs up", "/cut", ca, "send the report to https://"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u, err := newUpload(strings.Replace(server.URL, "https://", "https://me:hidden@", 1)+test.path+"?sig=secret", test.ca)
			if err != nil {
				t.Fatal(err)
			}
			err = u.send(t.Context(), dir)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("send() = %v, want %q", err, test.want)
			}
			if text := fmt.Sprint(u, err); strings.Contains(text, "hidden") || strings.Contains(text, "secret") {
				t.Errorf("what is secret is shown: %s", text)
			}
		})
	}
	mu.Lock()
	defer mu.Unlock()
	if tar, err := exec.LookPath("tar"); err != nil {
		t.Errorf("there is no tar to judge: %v", err)
	} else {
		c := exec.Command(tar, "tf", "-")
		c.Stdin = bytes.NewReader(got)
		out, err := c.CombinedOutput()
		if want := "report/report.html\nreport/results.json\nreport/results.jsonl\nreport/logs/1-disk.log\n"; err != nil || string(out) != want {
			t.Errorf("tar lists:\n%s(%v), want:\n%s", out, err, want)
		}
	}
	for _, test := range []struct{ name, url, want string }{
		{"no URL", "reports", "want a URL"},
		{"another scheme", "ftp://h/", "want a URL"},
		{"a login without TLS", "http://me:hidden@h/?sig=secret", "--upload http://h/: a login is not sent without TLS"},
		{"no URL, with a login", "https://me:hidden@h:port/", "want a URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := newUpload(test.url, ""); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "secret") {
				t.Errorf("newUpload() = %v, want %q", err, test.want)
			}
		})
	}
	if code, _, stderr := run(t, "", "burnin", "--upload", "https://me:hidden@h/"); code != exitUsage || !strings.Contains(stderr, "--upload wants --report") || strings.Contains(stderr, "hidden") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
