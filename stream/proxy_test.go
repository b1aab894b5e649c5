// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestNewProxy(t *testing.T) {
	for _, tt := range []struct{ url, http, https, no, want string }{
		{"http://image.example/a", "http://proxy:3128", "", "", "http://proxy:3128"},
		{"http://image.example/a", "proxy:3128", "", "", "http://proxy:3128"},
		{"http://image.example/a", "", "http://proxy:3128", "", "none"},
		{"https://image.example/a", "http://one:1", "http://two:2", "", "http://two:2"},
		{"https://image.example/a", "", "socks5://two:2", "", "socks5://two:2"},
		{"http://image.example/a", "proxy:1", "", "image.example", "none"},
		{"http://image.example/a", "proxy:1", "", "other.example, .example", "none"},
		{"http://image.example/a", "proxy:1", "", "example", "none"},
		{"http://image.example/a", "proxy:1", "", "*.example", "none"},
		{"http://image.example/a", "proxy:1", "", "*", "none"},
		{"http://image.example/a", "proxy:1", "", "mage.example", "http://proxy:1"},
		{"http://example/a", "proxy:1", "", ".example", "http://proxy:1"},
		{"http://IMAGE.example./a", "proxy:1", "", "Image.Example", "none"},
		{"http://image.example:8080/a", "proxy:1", "", "image.example:8080", "none"},
		{"http://image.example/a", "proxy:1", "", "image.example:80", "none"},
		{"http://image.example/a", "proxy:1", "", "image.example:8080", "http://proxy:1"},
		{"http://192.0.2.7/a", "proxy:1", "", "192.0.2.7", "none"},
		{"http://192.0.2.7/a", "proxy:1", "", "192.0.2.0/24", "none"},
		{"http://192.0.3.7/a", "proxy:1", "", "192.0.2.0/24", "http://proxy:1"},
		{"http://192.0.2.7:81/a", "proxy:1", "", "192.0.2.7:81", "none"},
		{"http://192.0.2.7:82/a", "proxy:1", "", "192.0.2.7:81", "http://proxy:1"},
		{"http://[2001:db8::1]/a", "proxy:1", "", "2001:db8::1", "none"},
		{"http://[2001:db8::1]:8/a", "proxy:1", "", "[2001:db8::1]:8", "none"},
		{"http://[2001:db8::1]/a", "proxy:1", "", "2001:db8::/32", "none"},
		{"http://1.2.3.4/a", "proxy:1", "", "4, .4, .3.4", "http://proxy:1"},
		{"http://image.example/a", "proxy:1", "", ",, . :", "http://proxy:1"},
	} {
		proxy, err := NewProxy(tt.http, tt.https, tt.no)
		if err != nil {
			t.Errorf("NewProxy(%q, %q): %v", tt.http, tt.https, err)
			continue
		}
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if p, err := proxy(u); err != nil || p != nil {
			got = fmt.Sprint(p)
		}
		if got != tt.want {
			t.Errorf("%s, proxies %q and %q, none for %q: %s, want %s", tt.url, tt.http, tt.https, tt.no, got, tt.want)
		}
	}
	for _, bad := range []string{"ftp://hush@proxy", "http://", "http://hush:hush@%zz", "://hush"} {
		if _, err := NewProxy(bad, "", ""); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("NewProxy(%q) = %v", bad, err)
		}
	}
}

// The image comes through the proxy, who is given its own password and not the image's.
func TestHTTPThroughProxy(t *testing.T) {
	content := noise(100_000)
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, fmt.Sprintf("%s proxy %q image %q", r.URL, r.Header.Get("Proxy-Authorization"), r.Header.Get("Authorization")))
		w.Write(content) // the client may be gone
	}))
	defer proxy.Close()
	find, err := NewProxy(strings.Replace(proxy.URL, "http://", "http://user:word@", 1), "", "direct.example")
	if err != nil {
		t.Fatal(err)
	}
	src, err := NewHTTP("http://image.example/a", HTTPOptions{Proxy: find, Authorization: func() string { return "Bearer x" }})
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(t.Context(), []Source{src}, sha256Of(content), ReaderOptions{})
	defer r.Close()
	got, err := io.ReadAll(r)
	if err == nil {
		err = r.Verify()
	}
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if want := `http://image.example/a proxy "Basic dXNlcjp3b3Jk" image "Bearer x"`; len(asked) != 1 || asked[0] != want {
		t.Errorf("the proxy was asked for %q, want %q", asked, want)
	}
}

func FuzzNewProxy(f *testing.F) {
	f.Add("proxy:1", "a, .b, 192.0.2.0/24, [::1]:8", "http://a.b/c")
	f.Fuzz(func(t *testing.T, proxy, no, rawURL string) {
		find, err := NewProxy(proxy, proxy, no)
		if err != nil {
			return
		}
		if u, err := url.Parse(rawURL); err == nil {
			if p, err := find(u); err != nil || p != nil && p.Hostname() == "" {
				t.Errorf("proxy is %v, %v", p, err)
			}
		}
	})
}
