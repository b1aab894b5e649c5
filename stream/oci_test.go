// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParseReference(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for _, test := range []struct{ name, base, where, err string }{
		{"oci://r.example/a/b:1.0", "https://r.example/v2/a/b", "1.0", ""},
		{"oci://r.example:5000/a", "https://r.example:5000/v2/a", "latest", ""},
		{"oci://r.example/a@sha256:" + hex, "https://r.example/v2/a", "sha256:" + hex, ""},
		{"oci://r.example/a:tag@sha256:" + hex, "https://r.example/v2/a", "sha256:" + hex, ""},
		{"oci://r.example/a:@sha256:" + hex, "https://r.example/v2/a", "sha256:" + hex, ""}, // as in Ironic's handbook
		{"oci://localhost:5000/a:b", "http://localhost:5000/v2/a", "b", ""},
		{"oci://[::1]:5000/a:b", "http://[::1]:5000/v2/a", "b", ""},
		{"oci+http://r.example/a:b", "http://r.example/v2/a", "b", ""},
		{"oci://docker.io/debian:12", "https://registry-1.docker.io/v2/library/debian", "12", ""},
		{"oci://docker.io/me/debian", "https://registry-1.docker.io/v2/me/debian", "latest", ""},

		{"oci://r.example/", "", "", "its repository"},
		{"oci://r.example", "", "", "its repository"},
		{"oci:///a:b", "", "", "no host"},
		{"oci://r.example/../a:b", "", "", "its repository"},
		{"oci://r.example/a?x=y:b", "", "", "its repository"},
		{"oci://r.example/A:b", "", "", "its repository"},
		{"oci://r.example/a:", "", "", "its tag"},
		{"oci://r.example/a:b/c", "", "", "its tag"},
		{"oci://r.example/a:" + strings.Repeat("b", 129), "", "", "its tag"},
		{"oci://r.example/a@sha256:" + strings.ToUpper(hex), "", "", "its digest"},
		{"oci://r.example/a@sha256:00", "", "", "its digest"},
		{"oci://r.example/a@sha1:" + hex[:40], "", "", "its digest"},
		{"oci://me:hush@r.example/a:b", "", "", "do not belong"},
		{"oci://me:hush@shop.example/a:b", "", "", "do not belong"},
		{"oci://me:hush@sha256.example/a@sha256:" + hex, "", "", "do not belong"},
	} {
		r, err := parseReference(test.name)
		where := r.tag
		if !r.digest.IsZero() {
			where = r.digest.String()
		}
		if test.err == "" && (err != nil || r.base != test.base || where != test.where) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "hush")) {
			t.Errorf("parseReference(%s) = %s %s, %v; want %s %s, %q", test.name, r.base, where, err, test.base, test.where, test.err)
		}
	}
}

func TestChallenge(t *testing.T) {
	for _, test := range []struct {
		text string
		want challenge
		ok   bool
	}{
		{`Bearer realm="https://a/token",service="r.example",scope="repository:a/b:pull,push"`, challenge{"bearer", "https://a/token", "r.example", "repository:a/b:pull,push"}, true},
		{`bearer  Realm = "https://a/t" , error="invalid_token"`, challenge{"bearer", "https://a/t", "", ""}, true},
		{`Basic realm=registry`, challenge{"basic", "registry", "", ""}, true},
		{`Basic`, challenge{"basic", "", "", ""}, true},
		{`Bearer realm="a\"b"`, challenge{"bearer", `a"b`, "", ""}, true},
		{`Bearer realm="a`, challenge{}, false},
		{`Bearer realm`, challenge{}, false},
		{``, challenge{}, false},
	} {
		c, ok := parseChallenge(strings.ReplaceAll(test.text, ` = "`, `="`))
		if ok != test.ok || ok && c != test.want {
			t.Errorf("parseChallenge(%s) = %+v, %v, want %+v", test.text, c, ok, test.want)
		}
	}
}

func TestLogins(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("me:hush:hush"))
	login, err := ParseLogins([]byte(`{"auths": {"https://index.docker.io/v1/": {"auth": "` + auth + `"}, "R.example:5000": {"auth": "` + auth + `"}, "helper.example": {}}, "credsStore": "x"}`))
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"docker.io": "me", "registry-1.docker.io": "me", "r.example:5000": "me", "r.example": "", "helper.example": ""} {
		if user, password := login(host); user != want || (password == "hush:hush") != (want != "") {
			t.Errorf("login(%s) = %s %s", host, user, password)
		}
	}
	// A login for a part of a registry is for no other part of it.
	team := func(user string) string { return base64.StdEncoding.EncodeToString([]byte(user + ":x")) }
	login, err = ParseLogins([]byte(`{"auths": {"r/a": {"auth": "` + team("a") + `"}, "r/b": {"auth": "` + team("b") + `"}, "r": {"auth": "` + team("all") + `"}, "s/a/": {"auth": "` + team("sa") + `"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]string{"r/a": "a", "r/a/x": "a", "R/b/x/y": "b", "r/ab": "all", "r": "all", "s/a/x": "sa", "s/b": "", "s": ""} {
		if user, _ := login(repository); user != want {
			t.Errorf("login(%s) = %q, want %q", repository, user, want)
		}
	}
	for _, text := range []string{``, `[]`, `{"auths": []}`, `{"auths": {"a": {"auth": "hush"}}}`, `{"auths": {"a": {"auth": "!"}}}`} {
		if login, err := ParseLogins([]byte(text)); text != "" && err == nil || err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("ParseLogins(%s) = %v, %v", text, login == nil, err)
		}
	}
}

// shelf is a registry in memory.
type shelf struct {
	user, password string         // to be known, if there is a user
	basic          bool           // by Basic and not by a token
	tokens         int            // requests that one token is good for; 0 for all
	realm          string         // of the token server, if it is not the registry
	blobs          string         // URL of a server that blobs are at, if not here
	broken         map[string]int // status of paths

	mu     sync.Mutex
	things map[string][]byte // by path
	token  int
	left   int
	seen   []string // requests, with Authorization
}

func (s *shelf) put(kind string, b []byte) string {
	d := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	s.things["/v2/os/debian/"+kind+"/"+d] = b
	return d
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	auth := r.Header.Get("Authorization")
	s.seen = append(s.seen, strings.TrimSpace(r.URL.Path+" "+auth))
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(s.user+":"+s.password))
	if r.URL.Path == "/token" {
		if s.user != "" && auth != basic || r.URL.Query().Get("scope") != "repository:os/debian:pull" || r.URL.Query().Get("service") != "shelf" {
			w.WriteHeader(401)
			return
		}
		s.token, s.left = s.token+1, s.tokens
		fmt.Fprintf(w, `{"token": "token-%d"}`, s.token)
		return
	}
	switch {
	case s.basic && auth != basic:
		w.Header().Set("WWW-Authenticate", `Basic realm="shelf"`)
		w.WriteHeader(401)
		return
	case !s.basic && s.user != "" && (auth != fmt.Sprintf("Bearer token-%d", s.token) || s.tokens > 0 && s.left == 0):
		realm := s.realm
		if realm == "" {
			realm = "http://" + r.Host + "/token"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="shelf",scope="repository:os/debian:pull"`, realm))
		w.WriteHeader(401)
		return
	}
	s.left--
	if status := s.broken[r.URL.Path]; status != 0 {
		w.WriteHeader(status)
		return
	}
	b, ok := s.things[r.URL.Path]
	if !ok {
		w.WriteHeader(404)
		return
	}
	if s.blobs != "" && strings.Contains(r.URL.Path, "/blobs/") {
		http.Redirect(w, r, s.blobs+r.URL.Path, http.StatusTemporaryRedirect)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// An image in a registry is found, logged in for, and proven from its manifest down.
func TestOCI(t *testing.T) {
	image := bytes.Repeat([]byte("disk image "), 20<<20/11)
	type annotations = map[string]string
	manifestOf := func(layers ...any) []byte {
		b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": map[string]any{"mediaType": "application/vnd.oci.empty.v1+json"}, "layers": layers})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	layer := func(digest, mediaType string, a annotations) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": digest, "size": 1, "annotations": a}
	}
	indexOf := func(manifests ...any) []byte {
		b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": manifests})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	entry := func(digest, architecture, disktype string) map[string]any {
		return map[string]any{"mediaType": ociManifest, "digest": digest, "platform": map[string]string{"architecture": architecture, "os": "linux"}, "annotations": annotations{"disktype": disktype}}
	}
	tag := func(s *shelf, b []byte) { s.things["/v2/os/debian/manifests/12"] = b }
	const tar = "application/vnd.oci.image.layer.v1.tar"
	one := func(s *shelf) { tag(s, manifestOf(layer(s.put("blobs", image), "application/x-raw", nil))) }
	for _, test := range []struct {
		name  string
		shelf *shelf
		setUp func(s *shelf)
		ref   string // after the host
		login bool
		err   string
		is    error
		reads error // of the image
	}{
		{name: "artefact of one layer", setUp: one},
		{name: "pushed by ORAS", setUp: func(s *shelf) {
			tag(s, manifestOf(layer(s.put("blobs", image), tar, annotations{"org.opencontainers.image.title": "debian.img.zst"})))
		}},
		{name: "the disk image among other files", setUp: func(s *shelf) {
			tag(s, manifestOf(layer(s.put("blobs", []byte("x")), "text/plain", annotations{"org.opencontainers.image.title": "README"}), layer(s.put("blobs", image), tar, annotations{"org.opencontainers.image.title": "debian.qcow2"})))
		}},
		{name: "index, by architecture and type", setUp: func(s *shelf) {
			wrong, right := s.put("manifests", manifestOf(layer(s.put("blobs", []byte("no")), "x", nil))), s.put("manifests", manifestOf(layer(s.put("blobs", image), "x", nil)))
			tag(s, indexOf(entry(wrong, "arm64", "raw"), entry(wrong, "x86_64", "qcow2"), entry(wrong, "amd64", "hyperv"), entry(right, "x86_64", "applehv"), entry(wrong, "unknown", "")))
		}},
		{name: "index in an index", setUp: func(s *shelf) {
			m := s.put("manifests", manifestOf(layer(s.put("blobs", image), "x", nil)))
			tag(s, indexOf(entry(s.put("manifests", indexOf(entry(m, "amd64", ""))), "", "")))
		}},
		{name: "by digest", setUp: func(s *shelf) { s.put("manifests", manifestOf(layer(s.put("blobs", image), "x", nil))) },
			ref: "os/debian@" + fmt.Sprintf("sha256:%x", sha256.Sum256(manifestOf(layer(fmt.Sprintf("sha256:%x", sha256.Sum256(image)), "x", nil))))},
		{name: "token", shelf: &shelf{user: "me", password: "hush"}, setUp: one, login: true},
		{name: "tokens that do not last", shelf: &shelf{user: "me", password: "hush", tokens: 6}, setUp: one, login: true},
		{name: "basic", shelf: &shelf{user: "me", password: "hush", basic: true}, setUp: one, login: true},

		{name: "token without login", shelf: &shelf{user: "me", password: "hush"}, setUp: one, err: "/token: 401 Unauthorized"},
		{name: "basic without login", shelf: &shelf{user: "me", password: "hush", basic: true}, setUp: one, err: "401 Unauthorized"},
		{name: "basic with a wrong login", shelf: &shelf{user: "me", password: "other", basic: true}, setUp: one, login: true, err: "401 Unauthorized"},
		{name: "sent elsewhere for a token", shelf: &shelf{user: "me", realm: "ftp://192.0.2.1/token?hush"}, setUp: one, login: true, err: "not protected by TLS"},
		{name: "no such tag", setUp: one, ref: "os/debian:13", err: "404 Not Found"},
		{name: "no such machine", setUp: func(s *shelf) { tag(s, indexOf(entry("sha256:"+strings.Repeat("0", 64), "s390x", "raw"))) }, err: "for amd64, but: s390x raw"},
		{name: "container", setUp: func(s *shelf) { tag(s, manifestOf(layer(s.put("blobs", image), tar+"+gzip", nil))) }, err: "it is a container, and not a disk image"},
		{name: "two images", setUp: func(s *shelf) {
			tag(s, manifestOf(layer(s.put("blobs", image), "x", annotations{"disktype": "raw"}), layer(s.put("blobs", image), "x", annotations{"disktype": "qcow2"})))
		}, err: "2 of its layers"},
		{name: "files", setUp: func(s *shelf) {
			tag(s, manifestOf(layer(s.put("blobs", image), "x", nil), layer(s.put("blobs", image), "y", nil)))
		}, err: "none of its 2 layers"},
		{name: "nothing", setUp: func(s *shelf) { tag(s, manifestOf()) }, err: "no layer"},
		{name: "manifest of schema 1", setUp: func(s *shelf) { tag(s, []byte(`{"schemaVersion": 1}`)) }, err: "neither a manifest nor an index"},
		{name: "web page", setUp: func(s *shelf) { tag(s, []byte(`<html>`)) }, err: "not JSON"},
		{name: "endless", setUp: func(s *shelf) { tag(s, bytes.Repeat([]byte(" "), maxManifest+1)) }, err: "longer than"},
		{name: "of a million machines", setUp: func(s *shelf) {
			tag(s, []byte(`{"schemaVersion": 2, "manifests": [`+strings.Repeat("{},", 1e6)+`{}]}`))
		}, err: "more than 100000 things"},
		{name: "digest of another kind", setUp: func(s *shelf) { tag(s, manifestOf(layer("md5:00", "x", nil))) }, err: "none of sha256 or sha512"},
		{name: "digest that is a path", setUp: func(s *shelf) { tag(s, manifestOf(layer("sha256:../../x", "x", nil))) }, err: "not hexadecimal"},
		{name: "an index of indexes", setUp: func(s *shelf) {
			b := indexOf(entry("sha256:"+strings.Repeat("0", 64), "", ""))
			for range 4 {
				b = indexOf(entry(s.put("manifests", b), "", ""))
			}
			tag(s, b)
		}, err: "no layer"},
		{name: "manifest is changed", setUp: func(s *shelf) {
			d := s.put("manifests", manifestOf(layer(s.put("blobs", image), "x", nil)))
			s.things["/v2/os/debian/manifests/"+d] = manifestOf(layer(s.put("blobs", []byte("bad")), "x", nil))
			tag(s, indexOf(entry(d, "amd64", "raw")))
		}, is: ErrDigest},
		{name: "image is changed", setUp: func(s *shelf) {
			d := s.put("blobs", image)
			s.things["/v2/os/debian/blobs/"+d] = append(bytes.Clone(image[1:]), 0)
			tag(s, manifestOf(layer(d, "x", nil)))
		}, reads: ErrDigest},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := test.shelf
			if s == nil {
				s = &shelf{}
			}
			s.things = map[string][]byte{}
			test.setUp(s)
			server := httptest.NewServer(s)
			defer server.Close()
			ref := test.ref
			if ref == "" {
				ref = "os/debian:12"
			}
			o := OCIOptions{Architecture: "amd64", Reader: ReaderOptions{Patience: time.Second}}
			if test.login {
				o.Login = func(string) (string, string) { return "me", "hush" }
			}
			src, digest, err := NewOCI(t.Context(), "oci://"+strings.TrimPrefix(server.URL, "http://")+"/"+ref, o)
			if test.err != "" || test.is != nil {
				if err == nil || !strings.Contains(err.Error(), test.err) || test.is != nil && !errors.Is(err, test.is) || strings.Contains(err.Error(), "hush") {
					t.Fatalf("%v, want %q that is %v", err, test.err, test.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r := NewReader(t.Context(), []Source{src}, digest, ReaderOptions{Connections: 4, Patience: time.Second})
			defer r.Close()
			var got bytes.Buffer
			_, err = io.Copy(&got, r)
			if err == nil {
				err = r.Verify()
			}
			if !errors.Is(err, test.reads) || err == nil && !bytes.Equal(got.Bytes(), image) {
				t.Errorf("%d bytes, %v, want %v", got.Len(), err, test.reads)
			}
		})
	}
}

// A registry that sends us to another server for the image gets the login, and the other one does not.
func TestOCIRedirect(t *testing.T) {
	image := bytes.Repeat([]byte("image"), 5000)
	var elsewhere []string
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(image))
	}))
	defer store.Close()
	s := &shelf{user: "me", password: "hush", blobs: store.URL, things: map[string][]byte{}}
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "layers": []any{map[string]string{"digest": s.put("blobs", image), "mediaType": "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	s.things["/v2/os/debian/manifests/latest"] = b
	server := httptest.NewServer(s)
	defer server.Close()
	u, _ := url.Parse(server.URL)
	src, digest, err := NewOCI(t.Context(), "oci://"+u.Host+"/os/debian", OCIOptions{Login: func(repository string) (string, string) {
		if repository != u.Host+"/os/debian" {
			t.Errorf("asked for the login of %s", repository)
		}
		return "me", "hush"
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(t.Context(), []Source{src}, digest, ReaderOptions{})
	defer r.Close()
	if err := r.Verify(); err != nil {
		t.Error(err)
	}
	if len(elsewhere) != 1 || elsewhere[0] != "" {
		t.Errorf("the other server got %q", elsewhere)
	}
	if n := strings.Count(strings.Join(s.seen, "\n"), "/token "); n != 1 {
		t.Errorf("%d tokens were asked for: %q", n, s.seen)
	}
}

// What a tag leads to is proven by TLS alone, and not taken from where there is none. What a digest proves may come from there.
func TestOCIKeepsTLS(t *testing.T) {
	image := []byte("image")
	s := &shelf{things: map[string][]byte{}}
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "layers": []any{map[string]string{"digest": s.put("blobs", image), "mediaType": "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	digest := s.put("manifests", b)
	s.things["/v2/os/debian/manifests/12"] = b
	plain := httptest.NewServer(s)
	defer plain.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "example.com:443" { // which the server has a certificate for
			address = server.Listener.Addr().String()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	for _, test := range []struct{ name, ref, err string }{
		{"tag", ":12", "not protected by TLS"},
		{"digest", "@" + digest, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			src, want, err := NewOCI(t.Context(), "oci://example.com/os/debian"+test.ref, OCIOptions{HTTP: HTTPOptions{Transport: transport}})
			if test.err != "" || err != nil {
				if test.err == "" || err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("NewOCI() = %v, want %q", err, test.err)
				}
				return
			}
			r := NewReader(t.Context(), []Source{src}, want, ReaderOptions{})
			defer r.Close()
			if err := r.Verify(); err != nil {
				t.Errorf("the image: %v", err)
			}
		})
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion": 2, "manifests": [{"mediaType": "`+ociManifest+`", "digest": "sha256:`+strings.Repeat("0a", 32)+`", "platform": {"architecture": "x86_64"}, "annotations": {"disktype": "qcow2"}}]}`), "amd64")
	f.Add([]byte(`{"schemaVersion": 2, "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha512:`+strings.Repeat("0a", 64)+`", "annotations": {"org.opencontainers.image.title": "a.raw.gz"}}]}`), "arm64")
	f.Add([]byte(`{"schemaVersion": 2, "layers": [{"digest": "sha256:../x"}, {"annotations": null}]}`), "")
	f.Fuzz(func(t *testing.T, text []byte, architecture string) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		for _, find := range []func() (Digest, error){func() (Digest, error) { return m.choose(architecture) }, m.disk} {
			d, err := find()
			if (err == nil) == d.IsZero() {
				t.Errorf("%q: %v, %v", text, d, err)
			}
			if _, perr := ParseDigest(d.Algorithm, d.Hex); err == nil && (perr != nil || d.Hex != strings.ToLower(d.Hex)) {
				t.Errorf("%q: digest %v", text, d)
			}
		}
	})
}

func FuzzRegistryAnswers(f *testing.F) {
	f.Add(`Bearer realm="https://a/token",service="r",scope="repository:a/b:pull"`, []byte(`{"token": "abc", "expires_in": 60}`), "oci://r.example:5000/a/b:c")
	f.Add(`Basic realm=x`, []byte(`{"auths": {"r": {"auth": "YTpi"}}}`), "oci://[::1]/a@sha256:"+strings.Repeat("0a", 32))
	f.Fuzz(func(t *testing.T, header string, text []byte, name string) {
		parseChallenge(header)
		if token, err := parseToken(text); err == nil {
			r := &http.Request{Header: http.Header{}, URL: &url.URL{Scheme: "http", Host: "h"}}
			r.Header.Set("Authorization", "Bearer "+token)
			if err := r.Header.Write(io.Discard); err != nil || strings.ContainsAny(token, "\r\n ") {
				t.Errorf("token %q: %v", token, err)
			}
		}
		if login, err := ParseLogins(text); err == nil {
			login("r")
		}
		if r, err := parseReference(name); err == nil {
			if u, err := url.Parse(r.base + "/manifests/" + r.tag); err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil || !strings.HasPrefix(u.Path, "/v2/") || strings.Contains(u.Path, "..") && !strings.Contains(r.tag, "..") {
				t.Errorf("parseReference(%q) = %+v, %v", name, r, err)
			}
		}
	})
}
