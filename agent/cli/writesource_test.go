// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream"
)

// An image, its checksum file and its signature are fetched with the CAs that are given and no others, and with the login for their host, which nobody else gets, and nobody without TLS.
func TestWeb(t *testing.T) {
	var got []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		got = append(got, strings.Trim(user+":"+password, ":"))
		if user != "me" && r.TLS != nil {
			w.WriteHeader(401)
			return
		}
		fmt.Fprintf(w, "%064d  image\n", 0)
	})
	secure, plain := httptest.NewTLSServer(handler), httptest.NewServer(handler)
	defer secure.Close()
	defer plain.Close()
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ca := write("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	auth := base64.StdEncoding.EncodeToString([]byte("me:hush"))
	host := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	login := write("login", fmt.Sprintf(`{"auths": {%q: {"auth": %q}, %q: {"auth": %q}}}`, host(secure), auth, host(plain), auth))
	other := write("other", fmt.Sprintf(`{"auths": {"192.0.2.1": {"auth": %q}}}`, auth))
	for _, test := range []struct {
		name, ca, login, url string
		user                 string // as it arrived; "none" if nothing did
		err                  string
	}{
		{"login", ca, login, secure.URL, "me:hush", ""},
		{"no TLS, no login", ca, login, plain.URL, "", ""},
		{"no CA", "", login, secure.URL, "none", "certificate"},
		{"no login", ca, "", secure.URL, "", "401 Unauthorized"},
		{"login of another", ca, other, secure.URL, "", "401 Unauthorized"},
		{"not a CA", login, "", secure.URL, "none", "no certificate in it"},
		{"not logins", "", ca, secure.URL, "none", "not JSON with auths"},
		{"no file", filepath.Join(dir, "none"), "", secure.URL, "none", "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got = nil
			w, err := newWeb(test.ca, test.login, time.Second)
			if err == nil {
				_, err = w.digest(t.Context(), test.url+"/SUMS", []string{"image"})
			}
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "hush")) {
				t.Errorf("%v, want %q", err, test.err)
			}
			if (len(got) == 0) != (test.user == "none") || len(got) > 0 && got[0] != test.user {
				t.Errorf("the server saw %q, want %q", got, test.user)
			}
			if w == nil {
				return
			}
			sources, _, err := w.sources(t.Context(), []string{test.url + "/image"}, stream.Digest{}, false)
			if err != nil {
				t.Fatal(err)
			}
			r := stream.NewReader(t.Context(), sources, stream.Digest{}, w.reader)
			defer r.Close()
			if err := r.Verify(); (err == nil) != (test.err == "") {
				t.Errorf("image: %v", err)
			}
		})
	}
}

// A checksum file has the image, and not its torrent, which may be in it too.
func TestDigestOfTorrent(t *testing.T) {
	want, torrent := strings.Repeat("1", 64), strings.Repeat("2", 64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s  debian.img.torrent\n%s  debian.img\n", torrent, want)
	}))
	defer srv.Close()
	w, err := newWeb("", "", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, source, want string }{
		{"file", "images/debian.img.torrent", want},
		{"URL", "https://192.0.2.1/images/debian.img.torrent?key=1", want},
		{"image", "https://192.0.2.1/images/debian.img", want},
		{"magnet link, which does not tell", "magnet:?xt=urn:btih:00&dn=x&tr=https://192.0.2.1/debian.img", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if d, err := w.digest(t.Context(), srv.URL+"/SUMS", []string{test.source}); d.Hex != test.want || (err == nil) != (test.want != "") {
				t.Errorf("digest() = %v, %v, want %q", d, err, test.want)
			}
		})
	}
}

// A torrent that cannot be had leaves the mirrors, where something else proves the image.
func TestTorrentThatIsAway(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	away, mirror := srv.URL+"/image.torrent", "http://192.0.2.1/image"
	digest, err := parseDigest("--digest", "sha256:"+strings.Repeat("1", 64))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		names  []string
		digest stream.Digest
		signed bool
		want   string // the only source; "" for an error
	}{
		{"digest", []string{mirror, away}, digest, false, mirror},
		{"signature", []string{away, mirror}, stream.Digest{}, true, mirror},
		{"nothing that proves it", []string{away, mirror}, stream.Digest{}, false, ""},
		{"no mirror", []string{away}, digest, false, ""},
		{"file that is not there", []string{filepath.Join(t.TempDir(), "x.torrent"), mirror}, digest, false, ""},
		{"mirror that is none", []string{away, "file"}, digest, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, err := newWeb("", "", 100*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			w.warnings = &said
			sources, _, err := w.sources(t.Context(), test.names, test.digest, test.signed)
			switch {
			case test.want == "":
				if err == nil || said.Len() > 0 {
					t.Errorf("sources() = %v, want an error; it warns %q", sources, said.String())
				}
			case err != nil || len(sources) != 1 || sources[0].String() != test.want || !strings.Contains(said.String(), "404"):
				t.Errorf("sources() = %v, %v, want %s, with a warning; it warns %q", sources, err, test.want, said.String())
			}
		})
	}
}
