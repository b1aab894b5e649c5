// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// certificateLife is for how long a certificate is valid. The agent makes it at boot, and a ramdisk does
// not run for that long.
const certificateLife = 30 * 24 * time.Hour

// A Certificate is what the agent's API shows, with its private key.
type Certificate struct {
	PEM string // the certificate alone: what the heartbeat brings to the conductor
	TLS tls.Certificate
}

// CertificateOptions describe a certificate.
type CertificateOptions struct {
	Address string        // IP address or, if the conductor calls it so, host name of this machine
	Host    string        // name of this machine, for people; may be empty
	Curve   string        // p256, p384 or p521
	Now     time.Time     // what the conductor's clock shows, as well as that is known
	Skew    time.Duration // the certificate is valid from this time before Now on
}

// oidSubjectAltName is the extension that says whom a certificate is for. Source: RFC 5280, 4.2.1.6.
var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// newCertificate makes a key and a certificate that it signs itself, and returns them in one PEM text, too. The conductor takes the certificate
// as the only authority that it trusts for this node. It has the form of ironic-python-agent's
// (IPA ironic_python_agent/tls_utils.py): subjectAltName, critical, is the only extension.
func newCertificate(o CertificateOptions) (c Certificate, both []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make certificate for %s: %w", o.Address, err)
		}
	}()
	curve, ok := map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()}[o.Curve]
	if !ok {
		return Certificate{}, nil, fmt.Errorf("curve %q is none of p256, p384, p521", o.Curve)
	}
	name, err := subjectAltName(o.Address)
	if err != nil {
		return Certificate{}, nil, err
	}
	host := o.Host
	if host == "" {
		host = o.Address
	}
	if len(host) > 64 { // RFC 5280, ub-common-name
		host = host[:64]
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return Certificate{}, nil, err
	}
	template := &x509.Certificate{
		Subject:            pkix.Name{CommonName: host},
		NotBefore:          o.Now.Add(-o.Skew),
		NotAfter:           o.Now.Add(certificateLife),
		SignatureAlgorithm: x509.ECDSAWithSHA512,
		ExtraExtensions:    []pkix.Extension{{Id: oidSubjectAltName, Critical: true, Value: name}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Certificate{}, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Certificate{}, nil, err
	}
	both = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	both = append(both, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	c, err = parseCertificate(both)
	return c, both, err
}

// subjectAltName encodes the one name that the certificate is for. Source: RFC 5280, GeneralName.
func subjectAltName(address string) ([]byte, error) {
	const dnsName, ipAddress = 2, 7
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: dnsName, Bytes: []byte(address)}
	if ip, err := netip.ParseAddr(address); err == nil {
		name.Tag, name.Bytes = ipAddress, ip.Unmap().WithZone("").AsSlice()
	} else if address == "" || strings.Trim(strings.ToLower(address), "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return nil, errors.New("neither an IP address nor a host name")
	}
	return asn1.Marshal([]asn1.RawValue{name})
}

// parseCertificate reads certificate and key from one PEM text.
func parseCertificate(both []byte) (Certificate, error) {
	pair, err := tls.X509KeyPair(both, both)
	if err != nil {
		return Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return Certificate{PEM: string(text), TLS: pair}, nil
}

// OpenCertificate returns the certificate that is kept in a directory, or makes one and keeps it there: within
// one boot the conductor accepts one certificate only, and the agent may be started again. A
// certificate that is for another address or has expired is replaced; one that cannot be read is an error.
func OpenCertificate(dir string, o CertificateOptions) (Certificate, error) {
	file := filepath.Join(dir, "agent.pem")
	both, err := os.ReadFile(file)
	if err == nil {
		c, err := parseCertificate(both)
		if err != nil {
			return Certificate{}, fmt.Errorf("read certificate %s: %w", file, err)
		}
		if o.Now.Before(c.TLS.Leaf.NotAfter) && c.TLS.Leaf.VerifyHostname(o.Address) == nil {
			return c, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Certificate{}, fmt.Errorf("read certificate: %w", err)
	}
	c, both, err := newCertificate(o)
	if err != nil {
		return Certificate{}, err
	}
	if err := keepFile(file, both); err != nil {
		return Certificate{}, fmt.Errorf("keep certificate: %w", err)
	}
	return c, nil
}

// keepFile writes a file for this user alone, as a whole or not at all.
func keepFile(file string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(file), ".keep-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = next.Write(b)
	if closed := next.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(next.Name(), file)
	}
	if err != nil {
		os.Remove(next.Name())
	}
	return err
}

// opensslCiphers are the cipher suites of TLS 1.2 that the agent offers at all, by OpenSSL's names.
// Those of TLS 1.3 are not for choosing.
var opensslCiphers = []struct {
	name string
	id   uint16
}{
	{"ECDHE-ECDSA-AES256-GCM-SHA384", tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-RSA-AES256-GCM-SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
	{"ECDHE-ECDSA-AES128-GCM-SHA256", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-RSA-AES128-GCM-SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	{"ECDHE-ECDSA-CHACHA20-POLY1305", tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256},
	{"ECDHE-RSA-CHACHA20-POLY1305", tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256},
}

// defaultCiphers is IPA's default.
const defaultCiphers = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"

// LimitTLS sets the least version of TLS ("1.2", "1.3" or "" for 1.2) and the cipher suites of TLS 1.2 (a list of OpenSSL's
// names with colons between, or "" for the default) of a configuration of either side. It returns
// what means nothing here, such as OpenSSL's "HIGH:!aNULL"; of a list of such words only the default counts. Without TLS 1.2
// the list has no meaning.
func LimitTLS(config *tls.Config, minVersion, ciphers string) (ignored []string, err error) {
	switch minVersion {
	case "", "1.2":
		config.MinVersion = tls.VersionTLS12
	case "1.3":
		config.MinVersion = tls.VersionTLS13
		ciphers = ""
	default:
		return nil, fmt.Errorf("least TLS version %.40q is neither 1.2 nor 1.3", minVersion)
	}
	config.CipherSuites, ignored = cipherSuites(ciphers)
	if len(config.CipherSuites) == 0 {
		config.CipherSuites, _ = cipherSuites(defaultCiphers)
	}
	return ignored, nil
}

// cipherSuites are those of a list that are known, and the names of the others.
func cipherSuites(list string) (known []uint16, ignored []string) {
	for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune(": ,", r) }) {
		found := false
		for _, c := range opensslCiphers {
			if c.name == name {
				known = append(known, c.id)
				found = true
			}
		}
		if !found {
			ignored = append(ignored, name)
		}
	}
	return known, ignored
}
