// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// authority is a CA of a test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T, from, to time.Time) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// serve starts a server with a certificate of this CA, whose Date header is date.
func (a authority) serve(t *testing.T, from, to, date time.Time, ip net.IP, names ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: to, DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip != nil {
		template.IPAddresses = []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if date.IsZero() {
			w.Header()["Date"] = nil
			return
		}
		w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// The clock is measured against servers whose certificates look wrong for one reason each. What a wrong clock
// explains is accepted, from the CA that was given for this site; nothing else ever is.
func TestMeasure(t *testing.T) {
	now := time.Now()
	const day = 24 * time.Hour
	year := 365 * day
	loopback := net.IPv4(127, 0, 0, 1)
	for _, test := range []struct {
		name      string
		caFrom    time.Duration // relative to now, as everything
		from, to  time.Duration
		date      time.Duration
		noDate    bool
		ip        net.IP
		names     []string
		otherCA   bool
		noCA      bool
		localhost bool // the URL has a name, not an address
		want      time.Duration
		fails     string
	}{
		{name: "all right", caFrom: -year, from: -day, to: day, ip: loopback},
		{name: "ten years behind", caFrom: 9 * year, from: 10*year - day, to: 10*year + day, date: 10 * year, ip: loopback, want: 10 * year},
		{name: "ten years ahead", caFrom: -11 * year, from: -10*year - day, to: -10*year + day, date: -10 * year, ip: loopback, want: -10 * year},
		{name: "by name", caFrom: 9 * year, from: 10*year - day, to: 10*year + day, date: 10 * year, names: []string{"localhost"}, localhost: true, want: 10 * year},
		{name: "expired by the server's own time", caFrom: -3 * year, from: -2 * year, to: -year, ip: loopback, fails: "server's own time"},
		{name: "not yet valid by the server's own time", caFrom: -year, from: day, to: year, ip: loopback, fails: "server's own time"},
		{name: "wrong address", caFrom: -year, from: -day, to: day, ip: net.IPv4(192, 0, 2, 1), fails: "127.0.0.1"},
		{name: "no address, but a name", caFrom: -year, from: -day, to: day, names: []string{"localhost"}, fails: "127.0.0.1"},
		{name: "wrong name", caFrom: -year, from: -day, to: day, names: []string{"elsewhere.example"}, localhost: true, fails: "localhost"},
		{name: "wrong address and expired", caFrom: -3 * year, from: -2 * year, to: -year, date: -2*year + day, ip: net.IPv4(192, 0, 2, 1), fails: "127.0.0.1"},
		{name: "other CA", caFrom: -year, from: -day, to: day, ip: loopback, otherCA: true, fails: "unknown authority"},
		{name: "other CA and expired", caFrom: -3 * year, from: -2 * year, to: -year, date: -2*year + day, ip: loopback, otherCA: true, fails: "certificate"},
		{name: "no CA given", caFrom: -year, from: -day, to: day, ip: loopback, noCA: true, fails: "certificate"},
		{name: "no time in the answer", caFrom: -year, from: -day, to: day, ip: loopback, noDate: true, fails: "no time in the answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ca := newAuthority(t, now.Add(test.caFrom), now.Add(test.caFrom+30*year))
			date := now.Add(test.date)
			if test.noDate {
				date = time.Time{}
			}
			server := ca.serve(t, now.Add(test.from), now.Add(test.to), date, test.ip, test.names...)
			if test.localhost {
				server = strings.Replace(server, "127.0.0.1", "localhost", 1)
			}
			config := Config{CAFile: "ca", CA: ca.pem}
			switch {
			case test.otherCA:
				config.CA = newAuthority(t, now.Add(-year), now.Add(year)).pem
			case test.noCA:
				config.CA = nil
			}
			trust, err := config.trust()
			if err != nil {
				t.Fatal(err)
			}
			skew, err := trust.measure(t.Context(), server)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Fatalf("measure() = %v, %v, want an error with %q", skew, err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatalf("measure() = %v", err)
			}
			if off := (skew - test.want).Abs(); off > 2*time.Second {
				t.Errorf("measure() = %v, want %v", skew, test.want)
			}
		})
	}
}

// Without anything but the measuring request, dates count as ever.
func TestTrustVerifies(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, now.Add(-time.Hour), now.Add(time.Hour))
	trust, err := Config{CA: ca.pem}.trust()
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: trust.config()}}
	good := ca.serve(t, now.Add(-time.Hour), now.Add(time.Hour), now, net.IPv4(127, 0, 0, 1))
	if resp, err := client.Get(good); err != nil {
		t.Errorf("a good certificate: %v", err)
	} else {
		resp.Body.Close()
	}
	expired := ca.serve(t, now.Add(-2*time.Hour), now.Add(-time.Hour), now, net.IPv4(127, 0, 0, 1))
	if resp, err := client.Get(expired); err == nil {
		resp.Body.Close()
		t.Error("an expired certificate is accepted")
	}
}

func TestTrustRefuses(t *testing.T) {
	for _, ca := range []string{"", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := (Config{CAFile: "ca.crt", CA: []byte(ca)}).trust(); err == nil || !strings.Contains(err.Error(), "ca.crt") {
			t.Errorf("trust() of %q = %v, want an error that names the file", ca, err)
		}
	}
}

func TestSkewText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		3 * time.Second:        "3.0 s behind",
		-90 * time.Second:      "90.0 s ahead",
		5 * time.Hour:          "5.0 hours behind",
		-10 * 8760 * time.Hour: "3650 days ahead",
	} {
		if got := skewText(d); got != want {
			t.Errorf("skewText(%v) = %q, want %q", d, got, want)
		}
	}
}
