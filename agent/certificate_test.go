// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificateFor makes a certificate as the agent does, valid now.
func certificateFor(t testing.TB, address, curve string) Certificate {
	t.Helper()
	c, _, err := newCertificate(CertificateOptions{Address: address, Host: "node-1", Curve: curve, Now: time.Now(), Skew: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// program runs another program and returns all that it prints.
func program(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

// OpenSSL must see the certificate that the contract describes, and verify it as its own authority.
func TestCertificateForm(t *testing.T) {
	tests := []struct {
		curve, address string
		key, name      string
	}{
		{"p256", "192.0.2.10", "(256 bit)", "IP Address:192.0.2.10"},
		{"p384", "2001:db8::10", "(384 bit)", "IP Address:2001:DB8:0:0:0:0:0:10"},
		{"p521", "::ffff:192.0.2.10", "(521 bit)", "IP Address:192.0.2.10"},
		{"p384", "node-1.example.com", "(384 bit)", "DNS:node-1.example.com"},
	}
	for _, tt := range tests {
		t.Run(tt.curve+" "+tt.address, func(t *testing.T) {
			now := time.Date(2026, 11, 20, 23, 21, 57, 0, time.UTC)
			c, _, err := newCertificate(CertificateOptions{Address: tt.address, Host: "node-1", Curve: tt.curve, Now: now, Skew: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "agent.crt")
			if err := os.WriteFile(file, []byte(c.PEM), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := program(t, "openssl", "x509", "-in", file, "-noout", "-text")
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range []string{
				"Signature Algorithm: ecdsa-with-SHA512", "Issuer: CN = node-1", "Subject: CN = node-1", tt.key, tt.name,
				"Not Before: Nov 20 22:21:57 2026 GMT", "Not After : Dec 20 23:21:57 2026 GMT", "X509v3 Subject Alternative Name: critical",
			} {
				if !strings.Contains(out, want) {
					t.Errorf("openssl shows no %q", want)
				}
			}
			if n := strings.Count(out, "X509v3 ") - strings.Count(out, "X509v3 extensions"); n != 1 {
				t.Errorf("%d extensions, want 1", n)
			}
			if t.Failed() {
				t.Log(out)
			}
			for _, check := range []struct {
				at   time.Time
				good bool
			}{{now, true}, {now.Add(-59 * time.Minute), true}, {now.Add(-61 * time.Minute), false}, {now.Add(30*24*time.Hour + time.Minute), false}} {
				out, err := program(t, "openssl", "verify", "-attime", fmt.Sprint(check.at.Unix()), "-CAfile", file, file)
				if check.good != (err == nil) {
					t.Errorf("openssl verify at %v: %v: %s", check.at, err, out)
				}
			}
		})
	}
}

func TestNewCertificateRefuses(t *testing.T) {
	for _, tt := range []struct{ name, address, curve string }{
		{"no address", "", "p384"}, {"address with port", "192.0.2.10:9999", "p384"}, {"URL", "https://192.0.2.10", "p384"},
		{"bracketed", "[2001:db8::1]", "p384"}, {"no curve", "192.0.2.10", ""}, {"another curve", "192.0.2.10", "x25519"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := newCertificate(CertificateOptions{Address: tt.address, Curve: tt.curve, Now: time.Now()}); err == nil {
				t.Error("newCertificate succeeded")
			}
		})
	}
}

func TestOpenCertificate(t *testing.T) {
	now := time.Now()
	first := CertificateOptions{Address: "192.0.2.10", Host: "node-1", Curve: "p256", Now: now, Skew: time.Hour}
	change := func(f func(o *CertificateOptions)) CertificateOptions {
		o := first
		f(&o)
		return o
	}
	tests := []struct {
		name  string
		spoil func(t *testing.T, file string)
		then  CertificateOptions
		same  bool
		want  string // part of the error
	}{
		{"started again", nil, first, true, ""},
		{"started again with another host name and curve", nil, change(func(o *CertificateOptions) { o.Host, o.Curve = "x", "p384" }), true, ""},
		{"clock was put back", nil, change(func(o *CertificateOptions) { o.Now = now.Add(-240 * time.Hour) }), true, ""},
		{"another address", nil, change(func(o *CertificateOptions) { o.Address = "192.0.2.11" }), false, ""},
		{"expired", nil, change(func(o *CertificateOptions) { o.Now = now.Add(31 * 24 * time.Hour) }), false, ""},
		{"gone", func(t *testing.T, file string) { os.Remove(file) }, first, false, ""},
		{"empty", func(t *testing.T, file string) { os.WriteFile(file, nil, 0o600) }, first, false, "read certificate"},
		{"cut", func(t *testing.T, file string) { os.Truncate(file, 300) }, first, false, "read certificate"},
		{"another's key", func(t *testing.T, file string) {
			a, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b := certificateFor(t, "192.0.2.10", "p256")
			_, key, _ := strings.Cut(string(a), "-----END CERTIFICATE-----\n")
			os.WriteFile(file, []byte(b.PEM+key), 0o600)
		}, first, false, "private key does not match"},
		{"a directory", func(t *testing.T, file string) { os.Remove(file); os.Mkdir(file, 0o700) }, first, false, "is a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deep", "run")
			before, err := OpenCertificate(dir, first)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "agent.pem")
			info, err := os.Stat(file)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("kept as %v, %v, want mode 0600", info, err)
			}
			if tt.spoil != nil {
				tt.spoil(t, file)
			}
			after, err := OpenCertificate(dir, tt.then)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "BEGIN") {
					t.Errorf("OpenCertificate = %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if same := before.PEM == after.PEM; same != tt.same {
				t.Errorf("same certificate: %v, want %v", same, tt.same)
			}
			again, err := OpenCertificate(dir, tt.then)
			if err != nil || again.PEM != after.PEM {
				t.Errorf("the third time it is another one, or %v", err)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 1 {
				t.Errorf("files left: %v, %v", left, err)
			}
		})
	}
	if _, err := OpenCertificate("/proc/nonsense", first); err == nil {
		t.Error("OpenCertificate kept a certificate in /proc")
	}
}

func TestLimitTLS(t *testing.T) {
	tests := []struct {
		name, version, ciphers string
		want                   string // least version, number of suites, ignored names
		wantErr                string
	}{
		{"defaults", "", "", "TLS 1.2 4 []", ""},
		{"floor", "1.3", "", "TLS 1.3 4 []", ""},
		{"list", "1.2", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305", "TLS 1.2 2 []", ""},
		{"list with others", "1.2", "TLS_AES_256_GCM_SHA384:ECDHE-ECDSA-AES256-GCM-SHA384:!aNULL", "TLS 1.2 1 [TLS_AES_256_GCM_SHA384 !aNULL]", ""},
		{"only others", "1.2", "HIGH:!aNULL", "TLS 1.2 4 [HIGH !aNULL]", ""},
		{"weak", "1.2", "AES128-SHA", "TLS 1.2 4 [AES128-SHA]", ""},
		{"a list without meaning", "1.3", "HIGH:!aNULL", "TLS 1.3 4 []", ""},
		{"old version", "1.1", "", "", "neither 1.2 nor 1.3"},
		{"nonsense", "TLSv1.3", "", "", "neither 1.2 nor 1.3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var config tls.Config
			ignored, err := LimitTLS(&config, tt.version, tt.ciphers)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("LimitTLS = %v, want %q", err, tt.wantErr)
				}
				return
			}
			got := fmt.Sprint(tls.VersionName(config.MinVersion), " ", len(config.CipherSuites), " ", ignored)
			if got != tt.want || err != nil {
				t.Errorf("LimitTLS = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// The names must be OpenSSL's, for the suites that they stand for.
func TestCipherNames(t *testing.T) {
	for _, c := range opensslCiphers {
		out, err := program(t, "openssl", "ciphers", "-stdname", c.name)
		if err != nil || !strings.Contains(out, tls.CipherSuiteName(c.id)+" ") {
			t.Errorf("openssl ciphers %s: %v\n%s\nwant %s", c.name, err, out, tls.CipherSuiteName(c.id))
		}
	}
}

// serveAPI starts the API on the loopback interface with a certificate, and returns its address and
// the file with the certificate.
func serveAPI(t *testing.T, a *API, curve, minVersion string) (address, caFile string) {
	t.Helper()
	c := certificateFor(t, "127.0.0.1", curve)
	config := &tls.Config{Certificates: []tls.Certificate{c.TLS}}
	if _, err := LimitTLS(config, minVersion, ""); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Serve(ctx, l, config) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, []byte(c.PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), caFile
}

// Clients that trust nothing but the certificate from the heartbeat must get through, on each
// curve; and none below the floor, with another certificate or for another name.
func TestClientsVerifyTheCertificate(t *testing.T) {
	// What Ironic does, in the words of Python's standard library, strictly as Python 3.13 does by default.
	const python = `
import ssl, sys, urllib.request
c = ssl.create_default_context(cafile=sys.argv[2])
c.verify_flags |= ssl.VERIFY_X509_STRICT
c.minimum_version = getattr(ssl.TLSVersion, sys.argv[3])
print(urllib.request.urlopen(sys.argv[1], context=c, timeout=10).read().decode())
`
	for _, curve := range []string{"p256", "p384", "p521"} {
		t.Run(curve, func(t *testing.T) {
			address, ca := serveAPI(t, newAPI(t), curve, "1.2")
			url := "https://" + address + "/v1/status"
			for _, args := range [][]string{
				{"python3", "-c", python, url, ca, "TLSv1_2"},
				{"python3", "-c", python, url, ca, "TLSv1_3"},
				{"curl", "-sS", "--cacert", ca, "--max-time", "10", url},
				{"curl", "-sS", "--cacert", ca, "--max-time", "10", "--tls-max", "1.2", url},
				{"curl", "-sS", "--cacert", ca, "--max-time", "10", "--http2", url},
			} {
				out, err := program(t, args[0], args[1:]...)
				if err != nil || strings.TrimSpace(out) != `{"started_at":1718000000.123,"version":"0.1"}` {
					t.Errorf("%s: %v\n%s", args[0], err, out)
				}
			}
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			_, otherCA := serveAPI(t, newAPI(t), curve, "1.2")
			for name, args := range map[string][]string{
				"another certificate": {"-sS", "--cacert", otherCA, url},
				"another name":        {"-sS", "--cacert", ca, "--resolve", "node-1:" + port + ":127.0.0.1", "https://node-1:" + port + "/v1/status"},
				"TLS 1.1":             {"-sS", "--cacert", ca, "--tls-max", "1.1", url},
				"no TLS":              {"-sS", "-f", "http://" + address + "/v1/status"},
			} {
				if out, err := program(t, "curl", args...); err == nil {
					t.Errorf("curl got through with %s: %s", name, out)
				}
			}
		})
	}
	t.Run("floor 1.3", func(t *testing.T) {
		address, ca := serveAPI(t, newAPI(t), "p384", "1.3")
		url := "https://" + address + "/v1/status"
		if out, err := program(t, "curl", "-sS", "--cacert", ca, url); err != nil {
			t.Errorf("curl with TLS 1.3: %v: %s", err, out)
		}
		if out, err := program(t, "curl", "-sS", "--cacert", ca, "--tls-max", "1.2", url); err == nil {
			t.Errorf("curl with TLS 1.2 got through: %s", out)
		}
	})
}
