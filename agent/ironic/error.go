// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// ErrLookup is the error of a lookup that was given up. The error that carries it also has the
// last attempt's.
var ErrLookup = errors.New("node not found")

// ErrTokenLost is the error of ChooseToken when the server gave the token of this boot to an
// earlier caller and nobody here knows it: no request of the conductor can be trusted any more.
var ErrTokenLost = errors.New("the API gave out this boot's token before and does not repeat it")

// A StatusError is an answer with a status that means failure.
type StatusError struct {
	Method   string
	URL      string // without query
	Code     int    // the HTTP status
	Text     string // what the server says about it: one line, at most 500 bytes; may be empty
	Location string // where a redirect leads that was not followed; else empty
}

// Error says what was asked of whom and what the answer was.
func (e *StatusError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Code, http.StatusText(e.Code))
	if e.Location != "" {
		s += ", a redirect to " + e.Location + " that is not followed"
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// faultText finds the sentence for people in an error body. Old servers put JSON into a string
// inside of JSON, newer ones an object, and a proxy in between may send HTML.
func faultText(body []byte) string {
	type fault struct {
		String string `json:"faultstring"`
		Title  string `json:"title"`
	}
	var outer struct {
		Message json.RawMessage `json:"error_message"`
		fault
	}
	text := string(body)
	if json.Unmarshal(body, &outer) == nil {
		inner := outer.fault
		if len(outer.Message) > 0 {
			message := outer.Message
			var quoted string
			if json.Unmarshal(message, &quoted) == nil {
				message, text = json.RawMessage(quoted), quoted
			}
			var f fault
			if json.Unmarshal(message, &f) == nil {
				inner = f
			}
		}
		if inner.String != "" {
			text = inner.String
		} else if inner.Title != "" {
			text = inner.Title
		}
	}
	return oneLine(text)
}

// oneLine makes text from outside fit for a line of the log: no control characters, at most 500
// bytes.
func oneLine(s string) string {
	const limit = 500
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

// Hint says what a person should check first after err came back from a Client, or "" if the
// error speaks for itself.
func Hint(err error) string {
	var (
		status    *StatusError
		unknownCA x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		dns       *net.DNSError
		notTLS    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return fmt.Sprintf("check the clock: the server's certificate is valid from %s to %s",
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &unknownCA):
		return "check the CA file: it does not hold the authority that signed the server's certificate"
	case errors.As(err, &host):
		return "check the API URL: its host is not one that the server's certificate names"
	case errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		return "check the API URL: what listens there does not speak TLS (http:// instead of https://?)"
	case errors.As(err, &dns):
		return "check the name servers and the host in the API URL"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "check the port in the API URL and that the API runs: the host answered, but nothing listens there"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "check the address, the gateway and the cable: there is no way to the API's host"
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "check the gateway, the VLAN and firewalls: the API's host does not answer"
	case errors.As(err, &status):
		return status.hint()
	}
	return ""
}

func (e *StatusError) hint() string {
	switch {
	case e.Location != "":
		return "check the API URL: the server wants to be called at another one"
	case e.Code == http.StatusNotFound && strings.Contains(e.URL, "/v1/lookup"):
		return "check that a port of the node has one of these MAC addresses, and that the node is being deployed, cleaned, inspected or rescued"
	case e.Code == http.StatusForbidden:
		return "check that the API offers its ramdisk endpoints ([api]enable_ramdisk_endpoints)"
	case e.Code == http.StatusBadRequest && strings.HasPrefix(e.URL, "http:") && wantsTLS(e.Text):
		return "check the API URL: what listens there speaks TLS (https:// instead of http://?)"
	case e.Code == http.StatusBadRequest && strings.Contains(e.URL, "/v1/heartbeat/"):
		return "check that the node was not started again without this agent: token, callback URL and certificate must stay the same for one boot"
	case e.Code == http.StatusNotAcceptable:
		return "check the API version: the server refuses the one that was sent"
	}
	return ""
}

// wantsTLS tells whether a web server complains of a request in the clear: net/http, nginx and Apache say
// "Client sent an HTTP request to an HTTPS server", "The plain HTTP request was sent to HTTPS port" and "You're speaking plain HTTP to an SSL-enabled server port".
func wantsTLS(text string) bool {
	return strings.Contains(text, "HTTP request") && strings.Contains(text, "HTTPS") || strings.Contains(text, "plain HTTP to an SSL")
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
