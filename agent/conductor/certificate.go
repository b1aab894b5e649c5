// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The files that [WriteCertificates] makes.
const (
	CAFile   = "ca.crt"     // what nodes must trust: goes onto their configuration medium
	CertFile = "server.crt" // the server's certificate
	KeyFile  = "server.key" // its key, readable by the owner only
)

// validity is how long made certificates hold. A lab's machine may have a clock that is an hour off.
const (
	validity  = 2 * 365 * 24 * time.Hour
	clockSkew = time.Hour
)

// WriteCertificates makes a certificate authority and, signed by it, a server certificate for the hosts (addresses or
// names), and writes ca.crt, server.crt and server.key into dir. The authority's key is not kept, so it can never sign
// anything else; for other hosts a new authority is made. Files that exist are left alone, with an error.
func WriteCertificates(dir string, hosts []string) error {
	if len(hosts) == 0 {
		return errors.New("no host for the server certificate")
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	from := time.Now().Add(-clockSkew).Truncate(time.Second)
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "labconductor CA"},
		NotBefore:             from,
		NotAfter:              from.Add(validity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		Subject:               pkix.Name{CommonName: hosts[0]},
		NotBefore:             from,
		NotAfter:              from.Add(validity),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		switch ip := net.ParseIP(host); {
		case ip != nil:
			server.IPAddresses = append(server.IPAddresses, ip)
		case isHostName(host):
			server.DNSNames = append(server.DNSNames, host)
		default:
			return fmt.Errorf("%q is neither an address nor a host name", host)
		}
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make CA certificate: %w", err)
	}
	issuer, err := x509.ParseCertificate(caDER) // with its key identifier
	if err != nil {
		return fmt.Errorf("make CA certificate: %w", err)
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, issuer, key.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make server certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make server key: %w", err)
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []struct {
		name, block string
		der         []byte
		mode        os.FileMode
	}{
		{CAFile, "CERTIFICATE", caDER, 0o644},
		{CertFile, "CERTIFICATE", serverDER, 0o644},
		{KeyFile, "PRIVATE KEY", keyDER, 0o600},
	} {
		b := pem.EncodeToMemory(&pem.Block{Type: f.block, Bytes: f.der})
		if err := writeNew(filepath.Join(dir, f.name), b, f.mode); err != nil {
			return err
		}
	}
	return nil
}
