// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

// authority is a CA of a test, valid for ten years around now unless it is told otherwise.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	return authorityAt(t, name, nil, -5*365*day, 5*365*day)
}

// authorityAt makes a CA, by itself or under another, that is valid between two times from now.
func authorityAt(t *testing.T, name string, above *authority, from, to time.Duration) authority {
	t.Helper()
	var a authority
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = sign(t, template, above)
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	return a
}

// certify makes a server's certificate that is valid between two times from now. Names may be addresses.
func (a authority) certify(t *testing.T, from, to time.Duration, names ...string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	cert, key := sign(t, template, &a)
	return tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key}
}

func sign(t *testing.T, template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, parentKey := template, key
	if by != nil {
		parent, parentKey = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// trusts is a trust in some CAs, which were given for the site or are the ramdisk's own.
func trusts(given bool, cas ...authority) trust {
	t := trust{roots: x509.NewCertPool(), given: given, min: tls.VersionTLS12}
	for _, a := range cas {
		t.roots.AddCert(a.cert)
	}
	return t
}

// clockServer answers with its own time, which is ahead of ours by the given. It returns its address as 127.0.0.1:port.
func clockServer(t *testing.T, cert *tls.Certificate, ahead time.Duration) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		if ahead == noDate {
			w.Header()["Date"] = nil
		}
		if r.URL.Path == "/moved/" {
			w.Header().Set("Location", "http://192.0.2.1/")
			w.WriteHeader(http.StatusFound)
		}
	}))
	s.Config.ErrorLog = log.New(&bytes.Buffer{}, "", 0) // handshakes that fail are what we want
	if cert == nil {
		s.Start()
	} else {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// noDate makes a clockServer that does not tell the time.
const noDate = time.Duration(-1)

// What makes a certificate right does not depend on our clock; only what it is compared with does.
func TestMeasure(t *testing.T) {
	site, other := newAuthority(t, "site"), newAuthority(t, "other")
	young := authorityAt(t, "made a month from now", nil, 30*day, 400*day)
	old := authorityAt(t, "ended a month ago", nil, -400*day, -30*day)
	middle := authorityAt(t, "under site", &site, 365*day, 730*day)
	const year = 365 * day
	tests := []struct {
		name    string
		trust   trust
		cert    tls.Certificate
		host    string // of the URL; 127.0.0.1 without
		ahead   time.Duration
		wantErr string // the skew is what the server is ahead, without an error
	}{
		{"all is well", trusts(true, site), site.certify(t, -day, day, "127.0.0.1"), "", 0, ""},
		{"all is well by name", trusts(true, site), site.certify(t, -day, day, "localhost"), "localhost", 0, ""},
		{"all is well, ramdisk's own CAs", trusts(false, site), site.certify(t, -day, day, "127.0.0.1"), "", 0, ""},
		{"a minute", trusts(true, site), site.certify(t, -day, day, "127.0.0.1"), "", time.Minute, ""},

		{"our clock is years behind", trusts(true, site), site.certify(t, year, 2*year, "127.0.0.1"), "", 500 * day, ""},
		{"our clock is years behind, by name", trusts(true, site), site.certify(t, year, 2*year, "localhost"), "localhost", 500 * day, ""},
		{"our clock is years ahead", trusts(true, site), site.certify(t, -2*year, -year, "127.0.0.1"), "", -500 * day, ""},
		{"our clock is behind the CA too", trusts(true, young), young.certify(t, 30*day, 400*day, "127.0.0.1"), "", 40 * day, ""},
		{"our clock is behind the CA only", trusts(true, young), young.certify(t, -day, 400*day, "127.0.0.1"), "", 40 * day, ""},
		{"our clock is ahead of the CA only", trusts(true, old), old.certify(t, -300*day, year, "127.0.0.1"), "", -100 * day, ""},
		{"our clock is behind the CA in between", trusts(true, site), middle.certify(t, -day, 2*year, "127.0.0.1"), "", 400 * day, ""},

		{"not for this address", trusts(true, site), site.certify(t, -day, day, "192.0.2.1"), "", 0, "192.0.2.1, not 127.0.0.1"},
		{"not for this name", trusts(true, site), site.certify(t, -day, day, "ironic.example"), "localhost", 0, "ironic.example, not localhost"},
		{"a name is no address", trusts(true, site), site.certify(t, -day, day, "localhost"), "", 0, "127.0.0.1"},
		{"wrong clock, not for this address", trusts(true, site), site.certify(t, year, 2*year, "192.0.2.1"), "", 500 * day, "192.0.2.1, not 127.0.0.1"},
		{"wrong clock, not for this name", trusts(true, site), site.certify(t, year, 2*year, "ironic.example"), "localhost", 500 * day, "ironic.example, not localhost"},
		{"other CA", trusts(true, site), other.certify(t, -day, day, "127.0.0.1"), "", 0, "unknown authority"},
		{"wrong clock, other CA", trusts(true, site), other.certify(t, year, 2*year, "127.0.0.1"), "", 500 * day, "unknown authority"},
		{"no CA at all", trusts(true), site.certify(t, year, 2*year, "127.0.0.1"), "", 500 * day, "unknown authority"},
		{"wrong clock, ramdisk's own CAs", trusts(false, site), site.certify(t, year, 2*year, "127.0.0.1"), "", 500 * day, "not yet valid"},
		{"expired, ramdisk's own CAs", trusts(false, site), site.certify(t, -2*year, -year, "127.0.0.1"), "", 0, "expired"},

		// It is the certificate that is wrong, and not our clock.
		{"expired by the server's time too", trusts(true, site), site.certify(t, -2*year, -year, "127.0.0.1"), "", 0, "at the server's own time"},
		{"not yet valid by the server's time", trusts(true, site), site.certify(t, year, 2*year, "127.0.0.1"), "", 0, "at the server's own time"},
		{"the server's time is before its certificate's", trusts(true, site), site.certify(t, -day, day, "127.0.0.1"), "", -2 * day, "at the server's own time"},
		{"the server's time is after its certificate's", trusts(true, site), site.certify(t, -day, day, "127.0.0.1"), "", 2 * day, "at the server's own time"},
		{"the server's time is after its CA's", trusts(true, site), site.certify(t, -day, 20*year, "127.0.0.1"), "", 10 * year, "at the server's own time"},
		{"the server's time is after that, ramdisk's own CAs", trusts(false, site), site.certify(t, -day, day, "127.0.0.1"), "", 2 * day, "at the server's own time"},
		{"no time", trusts(true, site), site.certify(t, -day, day, "127.0.0.1"), "", noDate, "no time in the answer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			address := clockServer(t, &test.cert, test.ahead)
			if test.host != "" {
				address = strings.Replace(address, "127.0.0.1", test.host, 1)
			}
			skew, err := test.trust.measure(t.Context(), "https://"+address+"/")
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("measure() = %v, %v, want error %q", skew, err, test.wantErr)
				}
				return
			}
			if err != nil || (skew-test.ahead).Abs() > 5*time.Second {
				t.Errorf("measure() = %v, %v, want about %v", skew, err, test.ahead)
			}
		})
	}
}

func TestMeasureOtherwise(t *testing.T) {
	site, other := newAuthority(t, "site"), newAuthority(t, "other")
	good := site.certify(t, -day, day, "127.0.0.1")
	foreign := other.certify(t, -2*day, -day, "192.0.2.1")
	insecure := trusts(true, site)
	insecure.insecure = true
	strict := trusts(true, site)
	strict.min = tls.VersionTLS13
	https, bad, http := "https://"+clockServer(t, &good, 0), "https://"+clockServer(t, &foreign, time.Hour), "http://"+clockServer(t, nil, -time.Hour)
	tests := []struct {
		name    string
		trust   trust
		server  string
		want    time.Duration
		wantErr string
	}{
		{"without TLS", trusts(true, site), http + "/", -time.Hour, ""},
		{"insecure, as was asked for", insecure, bad + "/", time.Hour, ""},
		{"TLS 1.3", strict, https + "/", 0, ""},
		{"a redirect is not followed", trusts(true, site), https + "/moved/", 0, ""},
		{"URL without host", trusts(true, site), strings.Replace(https, "127.0.0.1", "", 1) + "/", 0, "no host to compare its names with"},
		{"no URL", trusts(true, site), "https://%zz", 0, "invalid URL"},
		{"nobody there", trusts(true, site), "https://127.0.0.1:1/", 0, "connection refused"},
		{"HTTP where HTTPS is wanted", trusts(true, site), strings.Replace(http, "http:", "https:", 1) + "/", 0, "HTTP response to HTTPS client"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			skew, err := test.trust.measure(t.Context(), test.server)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("measure() = %v, %v, want error %q", skew, err, test.wantErr)
				}
				return
			}
			if err != nil || (skew-test.want).Abs() > 5*time.Second {
				t.Errorf("measure() = %v, %v, want about %v", skew, err, test.want)
			}
		})
	}
}

// All other requests, of the API and of images, take dates as they are.
func TestTrustVerifies(t *testing.T) {
	site := newAuthority(t, "site")
	good, expired, foreign := site.certify(t, -day, day, "127.0.0.1"), site.certify(t, -2*day, -day, "127.0.0.1"), newAuthority(t, "other").certify(t, -day, day, "127.0.0.1")
	client := http.Client{Transport: &http.Transport{TLSClientConfig: trusts(true, site).config()}}
	defer client.CloseIdleConnections()
	for _, test := range []struct {
		name string
		cert tls.Certificate
		want string
	}{{"good", good, ""}, {"expired", expired, "expired"}, {"other CA", foreign, "unknown authority"}} {
		resp, err := client.Get("https://" + clockServer(t, &test.cert, 0))
		if err == nil {
			resp.Body.Close()
		}
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// An API that speaks TLS and is called without says so, in whatever way its server does.
func TestMeasureWithoutTLS(t *testing.T) {
	site := newAuthority(t, "site")
	cert := site.certify(t, -day, day, "127.0.0.1")
	address := clockServer(t, &cert, 0)
	if _, err := trusts(true, site).measure(t.Context(), "http://"+address+"/"); err == nil || !strings.Contains(err.Error(), "status 400 and no time in the answer: what listens there may want https://") {
		t.Errorf("measure() = %v", err)
	}
}

// ntpServer answers every question with a time that is ahead of ours. Source: RFC 5905, 7.3.
func ntpServer(t *testing.T, ahead time.Duration, stratum byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for {
			b := make([]byte, 48)
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			now := time.Now().Add(ahead)
			stamp := uint64(now.Unix()+2208988800)<<32 | uint64(now.Nanosecond())<<32/1e9
			answer := make([]byte, 48)
			answer[0], answer[1] = 4<<3|4, stratum // version 4, server
			copy(answer[12:16], "TEST")
			binary.BigEndian.PutUint64(answer[16:], stamp)
			copy(answer[24:32], b[40:48]) // when the question was sent
			binary.BigEndian.PutUint64(answer[32:], stamp)
			binary.BigEndian.PutUint64(answer[40:], stamp)
			conn.WriteTo(answer, from) // a lost answer is UDP's way
		}
	}()
	return conn.LocalAddr().String()
}

func TestAskNTP(t *testing.T) {
	for _, ahead := range []time.Duration{0, 400 * day, -3 * time.Hour} {
		got, err := askNTP(ntpServer(t, ahead, 1))
		if err != nil || (got-ahead).Abs() > 2*time.Second {
			t.Errorf("askNTP() = %v, %v, want about %v", got, err, ahead)
		}
	}
	if got, err := askNTP(ntpServer(t, time.Hour, 16)); err == nil { // 16: it is not synchronized itself
		t.Errorf("askNTP() = %v of a server that does not know the time", got)
	}
	if got, err := askNTP("127.0.0.1:1"); err == nil {
		t.Errorf("askNTP() = %v where nobody is", got)
	}
}
