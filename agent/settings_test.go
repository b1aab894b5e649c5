// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// pemPair is a certificate with its issuer, and its key, as in files.
func pemPair(t *testing.T, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	for _, der := range c.Certificate {
		cert = append(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// siteFS is "/" of a ramdisk with a configuration file and the certificate, key and CA of a site.
func siteFS(t *testing.T, conf string, site authority, c tls.Certificate) fstest.MapFS {
	t.Helper()
	cert, key := pemPair(t, c)
	root := confFS(conf)
	root["x/ca.pem"], root["x/cert.pem"], root["x/key.pem"] = &fstest.MapFile{Data: []byte(site.pem)}, &fstest.MapFile{Data: cert}, &fstest.MapFile{Data: key}
	root["x/other.pem"] = &fstest.MapFile{Data: []byte("hush-hush")}
	return root
}

// How the API is encrypted: what is given counts, what is made at boot reaches the conductor, and in the clear it is only on demand.
func TestAPITLS(t *testing.T) {
	const files = "tls_cert_file = /x/cert.pem\ntls_key_file = /x/key.pem\n"
	site := newAuthority(t, "site")
	good, late := site.certify(t, -day, day, "127.0.0.1"), site.certify(t, -2*day, -day, "127.0.0.1")
	tests := []struct {
		name    string
		conf    string
		cmdline string
		version ironic.Version
		cert    *tls.Certificate
		address string
		shows   string // "own", "static" or "" for no TLS
		console string
		wantErr string
	}{
		{"made at boot", "", "", 68, &good, "127.0.0.1", "own", "", ""},
		{"given", "listen_tls = true\n" + files, "", 68, &good, "127.0.0.1", "static", "", ""},
		{"given by old names", "listen_tls = true\n[ssl]\ncert_file = /x/cert.pem\nkey_file = /x/key.pem\n", "", 68, &good, "127.0.0.1", "static", "", ""},
		{"given, old API", "listen_tls = true\n" + files, "", 61, &good, "127.0.0.1", "static", "", ""},
		{"given, automatic off", "enable_auto_tls = no\n" + files, "", 68, &good, "127.0.0.1", "static", "", ""},
		{"given, and not asked for", files, "", 68, &good, "127.0.0.1", "own", "tls_cert_file and tls_key_file have no effect", ""},
		{"given for another name", "listen_tls = true\n" + files, "", 68, &good, "192.0.2.1", "static", "WARNING: the conductor will not take the certificate in tls_cert_file", ""},
		{"given too late", "listen_tls = true\n" + files, "", 68, &late, "127.0.0.1", "static", "WARNING: the certificate in tls_cert_file is valid from", ""},
		{"old API", "", "", 67, &good, "127.0.0.1", "", "", "the Ironic API 1.67 knows no TLS towards agents"},
		{"old API, in the clear", "", "ironhand-plain-http=1", 67, &good, "127.0.0.1", "", "WARNING: ironhand-plain-http: the API is not encrypted", ""},
		{"new API, in the clear allowed", "", "ironhand-plain-http=1", 68, &good, "127.0.0.1", "own", "", ""},
		{"off", "enable_auto_tls = no\n", "", 68, &good, "127.0.0.1", "", "", "enable_auto_tls is off, and there is no certificate for the API"},
		{"off, in the clear", "enable_auto_tls = no\n", "ironhand-plain-http=1", 68, &good, "127.0.0.1", "", "WARNING: ironhand-plain-http", ""},
		{"no files", "listen_tls = true\n", "", 68, &good, "", "", "", "tls_cert_file and tls_key_file: both are needed"},
		{"no key", "listen_tls = true\ntls_cert_file = /x/cert.pem\n", "", 68, &good, "", "", "", "both are needed"},
		{"files that are not there", "listen_tls = true\ntls_cert_file = /y\ntls_key_file = /z\n", "", 68, &good, "", "", "", "tls_key_file /z: neither on a configuration medium nor in the ramdisk"},
		{"key that is none", "listen_tls = true\ntls_cert_file = /x/cert.pem\ntls_key_file = /x/other.pem\n", "", 68, &good, "", "", "", "tls_cert_file /x/cert.pem with tls_key_file /x/other.pem: tls: failed to find any PEM"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, console := newTestAgent(t, System{Cmdline: "ipa-api-url=https://h ipa-tls-certificate-curve=p256 " + test.cmdline, Root: siteFS(t, "[DEFAULT]\n"+test.conf, site, *test.cert)})
			err := a.readSettings(t.Context())
			var config *tls.Config
			var text string
			if err == nil {
				config, text, err = a.apiTLS(test.address, test.version)
			}
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Fatalf("error = %v, want %q", err, test.wantErr)
			}
			if err != nil {
				if strings.Contains(err.Error(), "hush") {
					t.Errorf("a key is in the error: %v", err)
				}
				return
			}
			wantText(t, "console", console.String(), test.console)
			if encrypted := test.shows != ""; (config != nil) != encrypted || (text != "") != (test.shows == "own") {
				t.Fatalf("configuration %v, PEM for the heartbeat %q", config, text)
			}
			if got, want := a.callbackURL("192.0.2.1", config != nil), map[bool]string{true: "https://192.0.2.1:9999", false: "http://192.0.2.1:9999"}[test.shows != ""]; got != want {
				t.Errorf("the conductor is told to call %s, want %s", got, want)
			}
			if static := config != nil && string(config.Certificates[0].Certificate[0]) == string(test.cert.Certificate[0]); static != (test.shows == "static") {
				t.Errorf("the given certificate is shown: %v", static)
			}
		})
	}
}

// A proxy that has TLS in front of an agent that has not.
func TestCallbackURLOfAProxy(t *testing.T) {
	a, _ := newTestAgent(t, System{Cmdline: "ipa-api-url=https://h ipa-advertise-protocol=https ipa-advertise-port=443"})
	if err := a.readSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.callbackURL("2001:db8::1", false); got != "https://[2001:db8::1]:443" {
		t.Errorf("callbackURL() = %s", got)
	}
}

// A conductor and an image server that ask for a certificate get the one that was given.
func TestClientCertificate(t *testing.T) {
	site := newAuthority(t, "site")
	pool := x509.NewCertPool()
	pool.AddCert(site.cert)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			io.WriteString(w, `{"default_version": {"version": "1.82"}}`)
		} else {
			fmt.Fprintf(w, `{"node": {"uuid": "n1"}, "config": {"heartbeat_timeout": 60, "agent_token": %q}}`, strings.Repeat("a", 43))
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{site.certify(t, -day, day, "127.0.0.1")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	defer server.Close()
	own := clientCertificate(t, site)
	for _, test := range []struct{ name, conf, wantErr string }{
		{"given", "certfile = /x/cert.pem\nkeyfile = /x/key.pem\n", ""},
		{"not given", "", "certificate required"},
		{"without key", "certfile = /x/cert.pem\n", "certfile and keyfile: both are needed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, _ := newTestAgent(t, System{Cmdline: "ipa-lookup-timeout=1 ipa-api-url=" + server.URL, Root: siteFS(t, "[DEFAULT]\ncafile = /x/ca.pem\n"+test.conf, site, own)})
			err := a.readSettings(t.Context())
			if err == nil {
				err = a.reachConductor(t.Context())
			}
			if err == nil {
				err = a.lookUp(t.Context())
			}
			if err == nil {
				var answer *http.Response
				if answer, err = (&http.Client{Transport: a.host.Transport}).Get(server.URL); err == nil {
					answer.Body.Close()
				}
			}
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Errorf("error = %v, want %q", err, test.wantErr)
			}
		})
	}
}

// clientCertificate is one by which somebody proves himself to a server.
func clientCertificate(t *testing.T, a authority) tls.Certificate {
	t.Helper()
	cert, key := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "agent"}, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(day),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, &a)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// plainAPI is an old Ironic, and keeps the last heartbeat.
func plainAPI(t *testing.T, version string) (url string, beat func() map[string]string) {
	t.Helper()
	var mu sync.Mutex
	var last map[string]string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
			fmt.Fprintf(w, `{"default_version": {"version": %q}}`, version)
		case strings.HasPrefix(r.URL.Path, "/v1/lookup"):
			fmt.Fprintf(w, `{"node": {"uuid": "n1"}, "config": {"heartbeat_timeout": 60, "agent_token": %q}}`, strings.Repeat("a", 43))
		default:
			mu.Lock()
			defer mu.Unlock()
			last = map[string]string{}
			if err := json.NewDecoder(r.Body).Decode(&last); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, func() map[string]string {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

// With an Ironic that is too old for TLS towards agents the whole way works in the clear, if that was asked for. An agent that is
// started again in this boot says the same address to the conductor, whatever the routes are now.
func TestServeInTheClear(t *testing.T) {
	url, beat := plainAPI(t, "1.67")
	port := streamtest.FreePort(t)
	cmdline := fmt.Sprintf("ipa-lookup-timeout=1 ironhand-plain-http=1 ipa-listen-host=127.0.0.1 ipa-listen-port=%d ipa-api-url=%s", port, url)
	dir := t.TempDir()
	for _, start := range []string{"first", "second"} {
		a, console := newTestAgent(t, System{Cmdline: cmdline, StateDir: dir, Network: func() (netconfig.Kernel, error) {
			return &wires{netconfig.State{NICs: []netconfig.NIC{{Name: "lo", Addresses: []netconfig.Address{{Prefix: netip.MustParsePrefix("127.0.0.1/8")}}}}}}, nil
		}})
		if err := errors.Join(a.readSettings(t.Context()), a.lookUp(t.Context())); err != nil {
			t.Fatal(err)
		}
		if start == "second" {
			a.config.NetworkInterface = "gone"
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.serve(ctx) }()
		callback := fmt.Sprintf("http://127.0.0.1:%d", port)
		deadline := time.Now().Add(10 * time.Second)
		for beat()["callback_url"] == "" && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if got := beat(); got["callback_url"] != callback || got["agent_token"] != strings.Repeat("a", 43) || got["agent_verify_ca"] != "" {
			t.Errorf("%s start: heartbeat %v, want %s without certificate", start, got, callback)
		}
		answer, err := http.Get(callback + "/v1/status")
		if err != nil {
			t.Errorf("%s start: %v", start, err)
		} else {
			answer.Body.Close()
		}
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s start: serve() = %v", start, err)
		}
		wantText(t, "console", console.String(), "WARNING: ironhand-plain-http")
		clear(beat())
	}
}

// What the lookup says counts more than the agent's own settings, and what it leaves out leaves them.
func TestApplySettings(t *testing.T) {
	yes, no := true, false
	tests := []struct {
		name    string
		conf    string
		answer  ironic.Settings
		want    string // MD5 refused, formats, least TLS version for images
		wantErr string
	}{
		{"nothing said", "", ironic.Settings{}, "false [raw gpt qcow2] 0x303", ""},
		{"own settings", "md5_enabled = no\npermitted_image_formats = iso\ntls_min_version = 1.3\n", ironic.Settings{}, "true [iso] 0x304", ""},
		{"MD5 off", "", ironic.Settings{MD5Enabled: &no}, "true [raw gpt qcow2] 0x303", ""},
		{"MD5 on", "md5_enabled = no", ironic.Settings{MD5Enabled: &yes}, "false [raw gpt qcow2] 0x303", ""},
		{"formats", "permitted_image_formats = iso", ironic.Settings{PermittedImageFormats: []string{"raw"}}, "false [raw] 0x303", ""},
		{"any format", "", ironic.Settings{DisableDeepImageInspection: &yes, PermittedImageFormats: []string{"raw"}}, "false [] 0x303", ""},
		{"any format, by the own setting", "disable_deep_image_inspection = yes", ironic.Settings{PermittedImageFormats: []string{"raw"}}, "false [] 0x303", ""},
		{"not any format", "disable_deep_image_inspection = yes", ironic.Settings{DisableDeepImageInspection: &no}, "false [raw gpt qcow2] 0x303", ""},
		{"not any format, but these", "disable_deep_image_inspection = yes", ironic.Settings{DisableDeepImageInspection: &no, PermittedImageFormats: []string{"raw"}}, "false [raw] 0x303", ""},
		{"TLS", "", ironic.Settings{TLSMinVersion: "1.3"}, "false [raw gpt qcow2] 0x304", ""},
		{"TLS, lower", "tls_min_version = 1.3", ironic.Settings{TLSMinVersion: "1.2"}, "false [raw gpt qcow2] 0x303", ""},
		{"TLS that is none", "", ironic.Settings{TLSMinVersion: "1.1"}, "", "apply what the conductor says of TLS: least TLS version \"1.1\" is neither 1.2 nor 1.3"},
		{"ciphers that are none", "", ironic.Settings{TLSCipherSuites: "HIGH:!aNULL:!MD5"}, "false [raw gpt qcow2] 0x303", ""},
		{"ciphers that are none, without TLS 1.2", "", ironic.Settings{TLSMinVersion: "1.3", TLSCipherSuites: "HIGH:!aNULL:!MD5"}, "false [raw gpt qcow2] 0x304", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, console := newTestAgent(t, System{Cmdline: "ipa-api-url=https://h", Root: confFS("[DEFAULT]\n" + test.conf)})
			if err := a.readSettings(t.Context()); err != nil {
				t.Fatal(err)
			}
			var err error
			if a.client, err = ironic.New(ironic.Options{URLs: a.config.APIURLs}); err != nil {
				t.Fatal(err)
			}
			if err = a.applySettings(test.answer); test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("applySettings() = %v, want %q", err, test.wantErr)
				}
				return
			}
			least := a.host.Transport.(*http.Transport).TLSClientConfig.MinVersion
			if got := fmt.Sprintf("%v %v %#x", a.host.Download.RefuseMD5, a.host.Download.Formats, least); got != test.want || err != nil {
				t.Errorf("%s, %v, want %s", got, err, test.want)
			}
			if warned := strings.Contains(console.String(), "WARNING"); warned != (test.name == "ciphers that are none") {
				t.Errorf("console\n%s", console)
			}
			if all := a.host.Download.Formats == nil; all != strings.Contains(test.want, "[]") {
				t.Errorf("all formats: %v", all)
			}
		})
	}
}

// The cipher suites are those of what the agent calls and, with the conductor's, of the API.
func TestCipherSuites(t *testing.T) {
	a, _ := newTestAgent(t, System{Cmdline: "ipa-api-url=https://h ipa-tls-certificate-curve=p256 ipa-tls-cipher-suites=ECDHE-RSA-AES128-GCM-SHA256:unheard-of"})
	if err := a.readSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	config, _, err := a.apiTLS("127.0.0.1", 68)
	if err != nil || fmt.Sprint(config.CipherSuites) != fmt.Sprint(want) || fmt.Sprint(a.trust.config().CipherSuites) != fmt.Sprint(want) {
		t.Errorf("cipher suites of the API %v, of what it calls %v, want %v; %v", config.CipherSuites, a.trust.config().CipherSuites, want, err)
	}
	if a.client, err = ironic.New(ironic.Options{URLs: a.config.APIURLs}); err != nil {
		t.Fatal(err)
	}
	if err := a.applySettings(ironic.Settings{TLSCipherSuites: "ECDHE-ECDSA-AES256-GCM-SHA384"}); err != nil {
		t.Fatal(err)
	}
	config, _, err = a.apiTLS("127.0.0.1", 68)
	if want := "[49196]"; err != nil || fmt.Sprint(config.CipherSuites) != want || fmt.Sprint(a.trust.config().CipherSuites) != want {
		t.Errorf("cipher suites of the API %v, of what it calls %v, want %s; %v", config.CipherSuites, a.trust.config().CipherSuites, want, err)
	}
}

// The password for image servers reaches the steps, and no log.
func TestImageServerPassword(t *testing.T) {
	a, console := newTestAgent(t, System{Cmdline: "ipa-api-url=https://h", Root: confFS("[DEFAULT]\nimage_server_auth_strategy = http_basic\nimage_server_user = u\nimage_server_password = hush-hush\n")})
	if err := a.readSettings(t.Context()); err != nil {
		t.Fatal(err)
	}
	if user, password := a.host.Download.BasicAuth(); user != "u" || password != "hush-hush" {
		t.Errorf("BasicAuth() = %s, %s", user, password)
	}
	if text := console.String() + fmt.Sprintf("%v %+v", a.config, a.host.Download) + string(a.withoutSecrets([]byte("x hush-hush"))); strings.Contains(text, "hush") {
		t.Errorf("the password is in %s", text)
	}
	b, _ := newTestAgent(t, System{Cmdline: "ipa-api-url=https://h", Root: confFS("[DEFAULT]\nimage_server_auth_strategy = http_basic\nimage_server_user = u\n")})
	if err := b.readSettings(t.Context()); err == nil || !strings.Contains(err.Error(), "http_basic without image_server_user and image_server_password") {
		t.Errorf("readSettings() without password = %v", err)
	}
}

// The address to advertise may take a while, and may be that of one NIC.
func TestAdvertisedAddressOfNIC(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		late := netconfig.NIC{Name: "eth1", Up: true, Addresses: []netconfig.Address{{Prefix: netip.MustParsePrefix("fe80::1/64")}, {Prefix: netip.MustParsePrefix("192.0.2.7/24")}}}
		network := func() (netconfig.Kernel, error) {
			if time.Since(start) < 15*time.Second {
				return &wires{}, nil
			}
			return &wires{netconfig.State{NICs: []netconfig.NIC{{Name: "eth0", Addresses: []netconfig.Address{{Prefix: netip.MustParsePrefix("198.51.100.7/24")}}}, late}}}, nil
		}
		a, console := newTestAgent(t, System{StateDir: dir, Network: network})
		a.config = Config{NetworkInterface: "eth1", IPAttempts: 2, IPSleep: 10 * time.Second}
		if address, err := a.advertisedAddress(t.Context()); err == nil || !strings.Contains(err.Error(), `find the address to advertise: "eth1", which ipa-network-interface names, has no IPv4 address`) {
			t.Errorf("advertisedAddress() = %s, %v after two attempts", address, err)
		}
		a.config.IPAttempts = 6
		if address, err := a.advertisedAddress(t.Context()); address != "192.0.2.7" || err != nil || time.Since(start) != 20*time.Second {
			t.Errorf("advertisedAddress() = %s, %v after %v", address, err, time.Since(start))
		}
		wantText(t, "console", console.String(), "has no IPv4 address; next try in 10s")
		// The next agent of this boot says the same, if the machine still has the address.
		b, _ := newTestAgent(t, System{StateDir: dir, Network: network})
		b.config = Config{NetworkInterface: "eth0", IPAttempts: 1}
		if address, err := b.advertisedAddress(t.Context()); address != "192.0.2.7" || err != nil {
			t.Errorf("advertisedAddress() of the next agent = %s, %v", address, err)
		}
		late.Addresses[1].Prefix = netip.MustParsePrefix("192.0.2.8/24")
		if address, err := b.advertisedAddress(t.Context()); address != "198.51.100.7" || err != nil {
			t.Errorf("advertisedAddress() without the one from before = %s, %v", address, err)
		}
	})
}

// wires is a network that is as it is.
type wires struct{ state netconfig.State }

func (w *wires) State(context.Context) (netconfig.State, error) { return w.state, nil }
func (w *wires) Do(_ context.Context, c netconfig.Change) error {
	return errors.New("cannot " + c.String())
}

// If the clock has to be set, the agent goes no further without.
func TestClockMustBeSet(t *testing.T) {
	answers := ntpServer(t, 400*day, 1)
	for _, test := range []struct {
		name    string
		cmdline string
		must    bool
		set     error
		wantErr string
		console string
	}{
		{"set", "ipa-ntp-server=" + answers, true, nil, "", "set to"},
		{"silent", "ipa-ntp-server=127.0.0.1:1", true, nil, "NTP server 127.0.0.1:1: ", ""},
		{"silent, and it need not", "ipa-ntp-server=127.0.0.1:1", false, nil, "", "going on without"},
		{"cannot be set", "ipa-ntp-server=" + answers, true, errors.New("not permitted"), "400 days behind, says NTP server", ""},
		{"cannot be set, and it need not", "ipa-ntp-server=" + answers, false, errors.New("not permitted"), "", "not permitted"},
		{"no server", "", true, errors.New("not permitted"), "", ""},
		{"a conductor that polls", "ironhand-poll=1 ipa-ntp-server=" + answers, true, nil, "", "set to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, console := newTestAgent(t, System{Cmdline: "ipa-api-url=http://127.0.0.1:1 " + test.cmdline, Root: confFS(fmt.Sprintf("[DEFAULT]\nfail_if_clock_not_set = %v\n", test.must)),
				SetClock: func(time.Time) error { return test.set }})
			if err := a.readSettings(t.Context()); err != nil {
				t.Fatal(err)
			}
			err := a.setClockByNTP(t.Context())
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Errorf("setClockByNTP() = %v, want %q", err, test.wantErr)
			}
			wantText(t, "console", console.String(), test.console)
		})
	}
}

// Slow hardware is waited for as long as was said, and NICs for a minute.
func TestHardwareIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, console := newTestAgent(t, System{Machine: inspect.Machine{FS: fstest.MapFS{}}, StateDir: t.TempDir()})
		a.managers = []steps.Manager{vendor{new(error)}}
		a.config.HardwareDelay = 20 * time.Second
		start := time.Now()
		if err := a.awaitHardware(t.Context()); err != nil || time.Since(start) != 20*time.Second {
			t.Errorf("awaitHardware() = %v after %v", err, time.Since(start))
		}
		start = time.Now()
		if err := a.takeInventory(t.Context()); err != nil || time.Since(start) != time.Minute {
			t.Errorf("takeInventory() = %v after %v", err, time.Since(start))
		}
		wantText(t, "console", console.String(), "waiting for 20s", "WARNING: no NIC has a MAC")
	})
	synctest.Test(t, func(t *testing.T) {
		a, _ := newTestAgent(t, System{Machine: inspect.Machine{FS: inspecttest.Machine(t, "../inspect/testdata/virtio.txt")}})
		a.managers = []steps.Manager{vendor{new(error)}}
		start := time.Now()
		if err := errors.Join(a.awaitHardware(t.Context()), a.takeInventory(t.Context())); err != nil || time.Since(start) != 0 {
			t.Errorf("with all there: %v after %v", err, time.Since(start))
		}
	})
}

// The console tells of heartbeats once, with what to check; the network is looked at only if no answer came over it.
func TestTellBeats(t *testing.T) {
	looked := 0
	a, console := newTestAgent(t, System{Network: func() (netconfig.Kernel, error) {
		looked++
		return nil, errors.New("looked at")
	}})
	tell := a.tellBeats(t.Context())
	wants := func(what, want string) {
		t.Helper()
		var lines []string
		for _, e := range a.console.Events() {
			lines = append(lines, e.Text)
		}
		if got := strings.Join(lines, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
		}
		a.console = boot.NewTimeline(console)
	}
	refused := fmt.Errorf("send heartbeat: %w", &ironic.StatusError{Method: "POST", URL: "http://h/v1/heartbeat/u", Code: 400, Text: "Invalid or missing agent token received."})
	const text = "send heartbeat: POST http://h/v1/heartbeat/u: 400 Bad Request: Invalid or missing agent token received."
	const check = "check that the node was not started again without this agent: token, callback URL and certificate must stay the same for one boot"
	for n := 1; n <= 7; n++ {
		tell(refused, n)
	}
	wants("refused", text+"; trying again\n"+check+"\n"+text+"; failed 2 times, trying again\n"+check+"\n"+text+"; failed 4 times, trying again\n"+check)
	if looked != 0 {
		t.Errorf("the network was looked at %d times, although the conductor answers", looked)
	}
	tell(nil, 0)
	tell(nil, 0)
	wants("accepted", "first one accepted: the conductor may begin")
	for n := 1; n <= 4; n++ {
		tell(errors.New("no way"), n)
	}
	tell(nil, 0)
	wants("away", "no way; trying again\nno way; failed 2 times, trying again\nno way; failed 4 times, trying again\nlooked at\naccepted again")
}
