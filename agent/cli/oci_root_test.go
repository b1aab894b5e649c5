// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/stream/looptest"
)

// An image comes from the registry that Debian ships: open to all, with a login, and with tokens that another server gives.
func TestRootWriteOCI(t *testing.T) {
	looptest.NeedRoot(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	script := `truncate -s 24M image && printf 'label: gpt\nsize=16M, name=root\n' | sfdisk --quiet image && head -c 12000000 /dev/urandom | dd of=image bs=1M seek=2 conv=notrunc status=none
		zstd -q image
		qemu-img convert -q -f raw -O qcow2 image image.qcow2`
	cmd := exec.Command("bash", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, err := os.ReadFile(file("image"))
	if err != nil {
		t.Fatal(err)
	}
	logins := file("auth.json")

	tokens := newTokenServer(t, file("tokens.pem"))
	for _, kind := range []struct {
		name, config string
		login        bool
	}{
		{"open", "", false},
		{"tokens", fmt.Sprintf("auth: {token: {realm: %s, service: shelf, issuer: test, rootcertbundle: %s}}\n", tokens, file("tokens.pem")), true},
	} {
		t.Run(kind.name, func(t *testing.T) {
			host := startRegistry(t, t.TempDir(), kind.config)
			p := pusher{t, "http://" + host + "/v2/os/debian", ""}
			if kind.login {
				p.authorization = "Bearer " + token(t, tokens, "repository:os/debian:pull,push")
			}
			text := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, base64.StdEncoding.EncodeToString([]byte("me:hush")))
			if err := os.WriteFile(logins, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			packed, qcow2 := p.blob(file("image.zst")), p.blob(file("image.qcow2"))
			p.manifest("packed", p.artefact(packed, "image.zst"))
			raw := p.manifest("", p.artefact(packed, "image.zst"))
			other := p.manifest("", p.artefact(qcow2, "image.qcow2"))
			p.manifest("all", map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{
				p.entry(other, "arm64", "raw"), p.entry(other, "amd64", "qcow2"), p.entry(raw, "amd64", "raw")}})
			p.manifest("qcow2", map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{
				p.entry(raw, "s390x", "raw"), p.entry(other, "x86_64", "qcow2")}})
			for _, test := range []struct {
				name, ref string
				args      []string
				code      int
				says      string
			}{
				{"one", ":packed", nil, 0, ""},
				{"index", ":all", []string{"--format", "raw"}, 0, ""},
				{"index, of another name", ":qcow2", []string{"--format", "qcow2"}, 0, ""},
				{"by digest", "@" + raw["digest"].(string), nil, 0, ""},
				{"digest is right", ":packed", []string{"--digest", packed["digest"].(string)}, 0, ""},

				{"digest is wrong", ":packed", []string{"--digest", "sha256:" + strings.Repeat("0", 64)}, 1, "digest does not match"},
				{"no such tag", ":none", nil, 1, "404 Not Found"},
				{"key without signature", ":packed", []string{"--public-key", "x"}, 2, "name one with --signature"},
			} {
				t.Run(test.name, func(t *testing.T) {
					device, disk := looptest.New(t, 24<<20, 512)
					args := append([]string{"write", "--yes", "--progress", "none", "oci://" + host + "/os/debian" + test.ref, device}, test.args...)
					if kind.login {
						args = append(args, "--auth-file", logins)
					}
					code, stdout, stderr := run(t, "", args...)
					if code != test.code || !strings.Contains(stderr, test.says) || strings.Contains(stdout+stderr, "hush") {
						t.Fatalf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, test.code, test.says)
					}
					got, err := os.ReadFile(disk)
					if err != nil {
						t.Fatal(err)
					}
					if (code == 0) != bytes.Equal(got, want) {
						t.Error("the disk holds something else")
					}
				})
			}
			if kind.login {
				device, _ := looptest.New(t, 24<<20, 512)
				if code, _, stderr := run(t, "", "write", "--yes", "oci://"+host+"/os/debian:packed", device); code != 1 || !strings.Contains(stderr, "401 Unauthorized") {
					t.Errorf("without login: exit %d, %s", code, stderr)
				}
			}
		})
	}
}

// startRegistry runs Debian's docker-registry and returns its host.
func startRegistry(t *testing.T, dir, config string) string {
	t.Helper()
	var l net.Listener
	for l == nil { // below the ports that the kernel gives to connections, so that it stays free
		l, _ = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+mathrand.IntN(20000))) // nil: taken
	}
	host := l.Addr().String()
	l.Close() // the registry takes it
	config = fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, host) + config
	name := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("docker-registry", "serve", name)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("registry: %s", out.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		c, err := net.Dial("tcp", host)
		if err == nil {
			c.Close() // it is up
			return host
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the registry does not come up: %v", err)
		}
	}
}

// pusher puts things into a registry, as the OCI distribution specification says.
type pusher struct {
	t                   *testing.T
	base, authorization string
}

func (p pusher) do(method, where, mediaType string, body []byte, want int) *http.Response {
	p.t.Helper()
	req, err := http.NewRequest(method, where, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	if p.authorization != "" {
		req.Header.Set("Authorization", p.authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != want {
		p.t.Fatalf("%s %s: %s: %s", method, where, resp.Status, text)
	}
	return resp
}

func (p pusher) blob(name string) map[string]any {
	p.t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.bytes(b, "application/vnd.oci.image.layer.v1.tar")
}

func (p pusher) bytes(b []byte, mediaType string) map[string]any {
	p.t.Helper()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	where := p.do("POST", p.base+"/blobs/uploads/", "", nil, 202).Header.Get("Location")
	p.do("PUT", where+"&digest="+digest, "application/octet-stream", b, 201)
	return map[string]any{"mediaType": mediaType, "digest": digest, "size": len(b)}
}

// artefact is a manifest as ORAS makes it.
func (p pusher) artefact(blob map[string]any, name string) map[string]any {
	p.t.Helper()
	blob["annotations"] = map[string]string{"org.opencontainers.image.title": name}
	return map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": p.bytes([]byte("{}"), "application/vnd.oci.empty.v1+json"), "layers": []any{blob}}
}

// manifest puts a manifest or an index by tag, or by digest if there is none.
func (p pusher) manifest(tag string, m map[string]any) map[string]any {
	p.t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		p.t.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	if tag == "" {
		tag = digest
	}
	p.do("PUT", p.base+"/manifests/"+tag, m["mediaType"].(string), b, 201)
	return map[string]any{"mediaType": m["mediaType"], "digest": digest, "size": len(b)}
}

func (p pusher) entry(m map[string]any, architecture, diskType string) map[string]any {
	return map[string]any{"mediaType": m["mediaType"], "digest": m["digest"], "size": m["size"],
		"platform": map[string]string{"architecture": architecture, "os": "linux"}, "annotations": map[string]string{"disktype": diskType}}
}

// newTokenServer gives tokens to whoever is me with the password hush, for what is asked, and writes the certificate that proves them.
func newTokenServer(t *testing.T, certificate string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scope := strings.Split(r.URL.Query().Get("scope"), ":")
		if user, password, _ := r.BasicAuth(); user != "me" || password != "hush" || len(scope) != 3 || r.URL.Query().Get("service") != "shelf" {
			w.WriteHeader(401)
			return
		}
		text := part(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(der)}}) + "." +
			part(map[string]any{"iss": "test", "sub": "me", "aud": "shelf", "exp": now.Add(time.Hour).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Unix(), "jti": "1",
				"access": []any{map[string]any{"type": scope[0], "name": scope[1], "actions": strings.Split(scope[2], ",")}}})
		sum := sha256.Sum256([]byte(text))
		a, b, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Error(err)
			return
		}
		signature := append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...)
		json.NewEncoder(w).Encode(map[string]any{"token": text + "." + base64.RawURLEncoding.EncodeToString(signature), "expires_in": 60}) // the client may be gone
	}))
	t.Cleanup(server.Close)
	return server.URL + "/token"
}

func token(t *testing.T, where, scope string) string {
	t.Helper()
	req, err := http.NewRequest("GET", where+"?service=shelf&scope="+scope, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("me", "hush")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.Token
}
