// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// registry sends requests to one registry with what it wants to see, and others with nothing. A token lives for minutes and an image may take hours, so it is asked for anew whenever the registry
// says so.
type registry struct {
	base           *http.Transport
	scheme, host   string
	scope          string
	user, password string

	mu            sync.Mutex
	authorization string // that was right last
}

func newRegistry(ref reference, o OCIOptions) (*registry, error) {
	if o.HTTP.Transport == nil {
		o.HTTP.Transport = http.DefaultTransport
	}
	t, ok := o.HTTP.Transport.(*http.Transport)
	if !ok {
		return nil, errors.New("a registry needs an http.Transport")
	}
	u, err := url.Parse(ref.base)
	if err != nil { // parseReference has made it
		return nil, errors.New("it is not a URL")
	}
	r := &registry{base: ownTransport(t, o.HTTP.Proxy), scheme: u.Scheme, host: u.Host, scope: ref.scope}
	if o.Login != nil {
		r.user, r.password = o.Login(ref.host + "/" + ref.repository)
	}
	return r, nil
}

// RoundTrip implements http.RoundTripper.
func (r *registry) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != r.scheme || req.URL.Host != r.host {
		return r.base.RoundTrip(req)
	}
	r.mu.Lock()
	authorization := r.authorization
	r.mu.Unlock()
	resp, err := r.send(req, authorization)
	for range 3 { // a new token may have been used up by others
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			break
		}
		var now string
		now, err = r.login(req, resp.Header.Values("WWW-Authenticate"), authorization)
		if err == nil && now == "" {
			break
		}
		resp.Body.Close() // of no interest
		if err != nil {
			return nil, err
		}
		authorization = now
		resp, err = r.send(req, authorization)
	}
	return resp, err
}

func (r *registry) send(req *http.Request, authorization string) (*http.Response, error) {
	if authorization != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", authorization)
	}
	return r.base.RoundTrip(req)
}

// login returns what to send instead of what the registry did not like; "" if there is nothing.
func (r *registry) login(req *http.Request, challenges []string, used string) (string, error) {
	r.mu.Lock() // one asks for all
	defer r.mu.Unlock()
	if r.authorization != used {
		return r.authorization, nil
	}
	for _, text := range challenges {
		c, ok := parseChallenge(text)
		switch {
		case !ok:
		case c.scheme == "bearer":
			token, err := r.token(req, c)
			if err != nil {
				return "", err
			}
			r.authorization = "Bearer " + token
			return r.authorization, nil
		case c.scheme == "basic" && r.user != "" && used == "":
			r.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(r.user+":"+r.password))
			return r.authorization, nil
		}
	}
	return "", nil
}

// token asks the registry's token server. Source: distribution's docs/spec/auth/token.md
func (r *registry) token(req *http.Request, c challenge) (string, error) {
	u, err := url.Parse(c.realm)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != r.scheme {
		return "", Final(errors.New("log in to the registry: where it sends us for a token is no URL, or not protected by TLS"))
	}
	q := u.Query()
	if c.service != "" {
		q.Set("service", c.service)
	}
	if c.scope == "" {
		c.scope = r.scope
	}
	q.Set("scope", c.scope)
	u.RawQuery = q.Encode()
	ask, err := http.NewRequestWithContext(req.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		return "", Final(errors.New("log in to the registry: where it sends us for a token is no URL"))
	}
	ask.Header.Set("User-Agent", "ironhand")
	if r.user != "" {
		ask.SetBasicAuth(r.user, r.password)
	}
	resp, err := r.base.RoundTrip(ask)
	if err != nil {
		return "", fmt.Errorf("log in to the registry at %s: %w", printable(u), err)
	}
	defer resp.Body.Close() // what is wanted of it is read
	if resp.StatusCode != http.StatusOK {
		e := &StatusError{URL: printable(u), Status: resp.StatusCode, After: retryAfter(resp.Header)}
		if e.Temporary() {
			return "", e
		}
		return "", Final(e)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return "", fmt.Errorf("log in to the registry at %s: %w", printable(u), err)
	}
	token, err := parseToken(text)
	if err != nil {
		return "", Final(fmt.Errorf("log in to the registry at %s: %w", printable(u), err))
	}
	return token, nil
}

// maxToken is how long the answer of a token server may be, bytes.
const maxToken = 64 << 10

// parseToken reads the answer of a token server. What is wrong with it is not told in its words: it may hold a secret.
func parseToken(text []byte) (string, error) {
	var answer struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return "", errors.New("the answer is not JSON with a token")
	}
	token := answer.Token
	if token == "" {
		token = answer.Access
	}
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c > unicode.MaxASCII || unicode.IsSpace(c) || unicode.IsControl(c) }) {
		return "", errors.New("there is no token in the answer")
	}
	return token, nil
}

// challenge is the header WWW-Authenticate (RFC 9110, 11.6.1), as registries send it: one in a header.
type challenge struct{ scheme, realm, service, scope string }

func parseChallenge(text string) (challenge, bool) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	c := challenge{scheme: strings.ToLower(scheme)}
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
		name, after, ok := strings.Cut(rest, "=")
		if !ok {
			return c, false
		}
		value := ""
		if quoted, isQuoted := strings.CutPrefix(after, `"`); isQuoted {
			var b strings.Builder
			i := 0
			for ; i < len(quoted) && quoted[i] != '"'; i++ {
				if quoted[i] == '\\' && i+1 < len(quoted) {
					i++
				}
				b.WriteByte(quoted[i])
			}
			if i == len(quoted) {
				return c, false
			}
			value, rest = b.String(), quoted[i+1:]
		} else {
			i := strings.IndexAny(after, " \t,")
			if i < 0 {
				i = len(after)
			}
			value, rest = after[:i], after[i:]
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "realm":
			c.realm = value
		case "service":
			c.service = value
		case "scope":
			c.scope = value
		}
	}
	return c, c.scheme != ""
}

// ParseLogins reads a file of logins as of containers-auth.json(5) and of Docker's config.json, and returns a function for [OCIOptions]. A login
// for a part of a registry, HOST/PATH, is for what is below it only, where it goes before that for the host.
func ParseLogins(text []byte) (func(repository string) (user, password string), error) {
	var file struct {
		Auths map[string]struct {
			Auth string `json:"auth"`
		} `json:"auths"`
	}
	if len(text) > maxManifest || json.Unmarshal(text, &file) != nil {
		return nil, errors.New("logins: not JSON with auths, as podman login and docker login write it")
	}
	type login struct{ user, password string }
	logins := map[string]login{}
	for _, host := range slices.Sorted(maps.Keys(file.Auths)) {
		entry := file.Auths[host]
		if entry.Auth == "" {
			continue
		}
		b, err := base64.StdEncoding.DecodeString(entry.Auth)
		user, password, ok := strings.Cut(string(b), ":")
		if err != nil || !ok {
			return nil, fmt.Errorf("logins: that for %.200q is not base64 of a user and a password", host)
		}
		logins[loginName(host)] = login{user, strings.TrimRight(password, "\x00")}
	}
	return func(repository string) (string, string) {
		for name := loginName(repository); ; name = name[:strings.LastIndexByte(name, '/')] {
			if l, ok := logins[name]; ok || !strings.Contains(name, "/") {
				return l.user, l.password
			}
		}
	}, nil
}

// loginName is the registry in what a file of logins has for one, or the part of it: Docker writes a URL, whose path says nothing.
func loginName(name string) string {
	_, rest, isURL := strings.Cut(name, "://")
	if isURL {
		name = rest
	}
	host, path, _ := strings.Cut(name, "/")
	if host = strings.ToLower(host); host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if path = strings.Trim(path, "/"); isURL || path == "" {
		return host
	}
	return host + "/" + path
}
