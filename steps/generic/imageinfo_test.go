// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// infoWith is an image's description that is good, with some keys changed. A nil value removes one.
func infoWith(t *testing.T, changes map[string]any) json.RawMessage {
	t.Helper()
	info := map[string]any{
		"id": "debian.img", "urls": []string{"https://192.0.2.1/debian.img"}, "disk_format": "raw", "container_format": "bare",
		"stream_raw_images": true, "os_hash_algo": "sha256", "os_hash_value": strings.Repeat("ab", 32), "node_uuid": "n1",
	}
	for key, value := range changes {
		info[key] = value
		if value == nil {
			delete(info, key)
		}
	}
	b, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// change is one key of an image's description.
type change = map[string]any

func TestParseImageInfo(t *testing.T) {
	null := json.RawMessage("null")
	tests := []struct {
		name    string
		changes change
		wantErr string
	}{
		{"as the conductor sends it", nil, ""},
		{"format is not known", change{"disk_format": null}, ""},
		{"format is not known to anybody", change{"disk_format": "unknown"}, ""},
		{"GPT", change{"disk_format": "gpt"}, ""},
		{"several URLs", change{"urls": []string{"http://a/x", "https://b/x?signature=1"}}, ""},
		{"whole disk, said", change{"image_type": "whole-disk"}, ""},
		{"proxies", change{"proxies": map[string]string{"https": "http://proxy:3128", "http": "proxy:3128"}, "no_proxy": "a,.b"}, ""},
		{"proxies that are null", change{"proxies": nil}, ""},
		{"proxies that are none", change{"proxies": map[string]string{}, "no_proxy": ""}, ""},
		{"keys of later versions", change{"unheard_of": []int{1}}, ""},

		{"no id", change{"id": nil}, "image_info.id: missing"},
		{"id is a number", change{"id": 5}, "image_info: json: cannot unmarshal number"},
		{"no URLs", change{"urls": nil}, "image_info.urls: must be a list of at least one URL"},
		{"URLs are empty", change{"urls": []string{}}, "image_info.urls: must be a list of at least one URL"},
		{"URLs are a text", change{"urls": "https://a/x"}, "image_info: json: cannot unmarshal string"},
		{"second URL is a path", change{"urls": []string{"https://a/x", "/etc/shadow"}}, "image_info.urls[1]: not a URL that begins with http:// or https://"},
		{"file URL", change{"urls": []string{"file:///etc/shadow"}}, "image_info.urls[0]: not a URL"},
		{"URL without host", change{"urls": []string{"https:///x"}}, "image_info.urls[0]: not a URL"},
		{"broken URL", change{"urls": []string{"https://hush-hush@%zz/"}}, "image_info.urls[0]: not a URL"},
		{"vmdk", change{"disk_format": "vmdk"}, `image_info.disk_format: "vmdk" cannot be written; convert it with: qemu-img convert -O qcow2`},
		{"proxy of no use", change{"proxies": map[string]string{"https": "ftp://hush-hush@proxy"}}, "image_info.proxies: proxy for https: want http, https or socks5, and a host"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, err := parseImageInfo(infoWith(t, test.changes))
			wantArgsError(t, err, test.wantErr)
			if err == nil && (i.ID != "debian.img" || len(i.URLs) == 0) {
				t.Errorf("parseImageInfo() = %+v", i)
			}
		})
	}
	for _, raw := range []string{"", "null", "[]", `"x"`, "{"} {
		if _, err := parseImageInfo(json.RawMessage(raw)); !errors.Is(err, steps.ErrArgs) {
			t.Errorf("parseImageInfo(%q) = %v, want ErrArgs", raw, err)
		}
	}
}

// wantArgsError wants an error that is steps.ErrArgs with a text, or none, and never the secret of these tests.
func wantArgsError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error = %v, want none", err)
	case want != "" && (!errors.Is(err, steps.ErrArgs) || !strings.Contains(err.Error(), want)):
		t.Errorf("error = %v, want ErrArgs with %q", err, want)
	case err != nil && strings.Contains(err.Error(), "hush"):
		t.Errorf("a secret is in the error: %v", err)
	}
}

func TestImageInfoDigest(t *testing.T) {
	hex := func(digits int) string { return strings.Repeat("Ab", digits/2) }
	low := func(digits int) string { return strings.ToLower(hex(digits)) }
	none := change{"os_hash_algo": nil, "os_hash_value": nil}
	with := func(key string, value any) change {
		c := change{}
		for k, v := range none {
			c[k] = v
		}
		c[key] = value
		return c
	}
	tests := []struct {
		name    string
		changes change
		want    string
		wantErr string
	}{
		{"SHA-256", nil, "sha256:" + low(64), ""},
		{"SHA-512, capital letters", change{"os_hash_algo": "SHA512", "os_hash_value": hex(128)}, "sha512:" + low(128), ""},
		{"digest over checksum", change{"checksum": hex(32)}, "sha256:" + low(64), ""},
		{"checksum: MD5", with("checksum", hex(32)), "md5:" + low(32), ""},
		{"checksum: SHA-256", with("checksum", hex(64)), "sha256:" + low(64), ""},
		{"checksum: SHA-512", with("checksum", hex(128)), "sha512:" + low(128), ""},
		{"checksum is null", change{"checksum": json.RawMessage("null")}, "sha256:" + low(64), ""},

		{"nothing", none, "", "image_info.os_hash_value: an image without a digest is not written"},
		{"all is empty", change{"os_hash_algo": "", "os_hash_value": "", "checksum": ""}, "", "an image without a digest is not written"},
		{"algorithm alone", change{"os_hash_value": nil}, "", "image_info.os_hash_algo and os_hash_value: one without the other"},
		{"value alone", change{"os_hash_algo": ""}, "", "image_info.os_hash_algo and os_hash_value: one without the other"},
		{"value alone, with checksum", change{"os_hash_algo": nil, "checksum": hex(64)}, "", "one without the other"},
		{"unknown algorithm", change{"os_hash_algo": "crc32", "os_hash_value": hex(8)}, "", `image_info.os_hash_value: parse digest: algorithm "crc32" is not one of`},
		{"wrong length", change{"os_hash_value": hex(32)}, "", "32 digits, sha256 has 64"},
		{"no hexadecimal", change{"os_hash_value": strings.Repeat("xy", 32)}, "", "not hexadecimal"},
		{"digest is a URL", change{"os_hash_value": "https://192.0.2.1/SHA256SUMS?key=hush-hush"}, "sha256 in https://192.0.2.1/SHA256SUMS?key=hush-hush", ""},
		{"checksum is a URL", with("checksum", "http://192.0.2.1/SHA256SUMS?key=hush-hush"), "in http://192.0.2.1/SHA256SUMS?key=hush-hush", ""},
		{"checksum is another URL", with("checksum", "ftp://192.0.2.1/SHA256SUMS?key=x"), "", "image_info.checksum: "},
		{"checksum of no known length", with("checksum", hex(34)), "", "image_info.checksum: "},
		{"checksum is no hexadecimal", with("checksum", "hello"), "", "image_info.checksum: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, err := parseImageInfo(infoWith(t, test.changes))
			if err != nil {
				t.Fatal(err)
			}
			d, url, err := i.digest()
			wantArgsError(t, err, test.wantErr)
			got := d.String()
			if url != "" {
				got = strings.TrimSpace(d.Algorithm + " in " + url)
			}
			if err == nil && got != test.want {
				t.Errorf("digest() = %s, want %s", got, test.want)
			}
		})
	}
}

func TestImageInfoAuthorization(t *testing.T) {
	encode := base64.StdEncoding.EncodeToString
	basic := "Basic " + encode([]byte("user:hush-hush"))
	tests := []struct {
		name    string
		changes change
		want    string
		wantErr string
	}{
		{"none", nil, "", ""},
		{"noauth", change{"image_server_auth_strategy": "noauth", "image_server_user": "user", "image_server_password": "hush-hush"}, "", ""},
		{"basic", change{"image_server_auth_strategy": "http_basic", "image_server_user": "user", "image_server_password": "hush-hush"}, basic, ""},
		{"whole header", change{"image_request_authorization": encode([]byte("Bearer hush-hush"))}, "Bearer hush-hush", ""},
		{"whole header over basic", change{"image_request_authorization": encode([]byte("Bearer hush-hush")), "image_server_auth_strategy": "http_basic",
			"image_server_user": "user", "image_server_password": "x"}, "Bearer hush-hush", ""},
		{"header is null", change{"image_request_authorization": json.RawMessage("null")}, "", ""},
		{"header is not base64", change{"image_request_authorization": "Bearer hush-hush"}, "", "image_info.image_request_authorization: not base64"},
		{"header of two lines", change{"image_request_authorization": encode([]byte("Bearer hush-hush\r\nX: y"))}, "", "image_info.image_request_authorization: "},
		{"no password", change{"image_server_auth_strategy": "http_basic", "image_server_user": "user"}, "", "http_basic without image_server_user and image_server_password"},
		{"no user", change{"image_server_auth_strategy": "http_basic", "image_server_password": "hush-hush"}, "", "http_basic without image_server_user and image_server_password"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			i, err := parseImageInfo(infoWith(t, test.changes))
			if err != nil {
				t.Fatal(err)
			}
			got, err := i.authorization(nil)
			wantArgsError(t, err, test.wantErr)
			if got != test.want {
				t.Errorf("authorization() = %q, want %q", got, test.want)
			}
		})
	}
}

// The agent's own setting for image servers counts only if the conductor says nothing.
func TestImageInfoOwnAuthorization(t *testing.T) {
	ours := func() (string, string) { return "ours", "hush-hush" }
	encode := base64.StdEncoding.EncodeToString
	for _, test := range []struct {
		name    string
		changes change
		want    string
	}{
		{"ours", nil, "Basic " + encode([]byte("ours:hush-hush"))},
		{"the conductor's", change{"image_server_auth_strategy": "http_basic", "image_server_user": "user", "image_server_password": "x"}, "Basic " + encode([]byte("user:x"))},
		{"the conductor's header", change{"image_request_authorization": encode([]byte("Bearer x"))}, "Bearer x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i, err := parseImageInfo(infoWith(t, test.changes))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := i.authorization(ours); got != test.want || err != nil {
				t.Errorf("authorization() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestImageInfoFormat(t *testing.T) {
	for _, test := range []struct {
		format    any
		permitted []string
		want      image.Format // "" for an error
	}{
		{nil, nil, image.Auto},
		{nil, []string{"raw", "gpt", "qcow2"}, image.Auto},
		{"unknown", []string{"raw", "gpt"}, image.Raw},
		{nil, []string{"qcow2", "iso"}, image.QCOW2},
		{"iso", []string{"gpt", "iso", "qcow2"}, image.Auto},
		{"raw", []string{"qcow2"}, image.Raw}, // the conductor knows what it is
		{"gpt", []string{}, image.Raw},
		{"qcow2", nil, image.QCOW2},
		{"qcow2", []string{"raw", "qcow2"}, image.QCOW2},
		{"qcow2", []string{"raw", "gpt"}, ""},
		{nil, []string{"raw", "iso"}, ""},
		{"unknown", []string{}, ""},
	} {
		i, err := parseImageInfo(infoWith(t, change{"disk_format": test.format}))
		if err != nil {
			t.Fatal(err)
		}
		got, err := i.format(test.permitted)
		if got != test.want || (err == nil) != (test.want != "") || err != nil && (!errors.Is(err, stream.ErrFormat) || !strings.Contains(err.Error(), "permits only")) {
			t.Errorf("%v, permitted %q: %q, %v, want %q", test.format, test.permitted, got, err, test.want)
		}
	}
}

func FuzzImageInfo(f *testing.F) {
	f.Add([]byte(`{"id": "i", "urls": ["https://192.0.2.1/i"], "checksum": "` + strings.Repeat("0", 64) + `"}`))
	f.Add([]byte(`{"id": "i", "urls": ["http://[::1]/"], "os_hash_algo": "sha512", "os_hash_value": "x", "proxies": {}, "image_request_authorization": "QQ=="}`))
	f.Add([]byte(`{"urls": [null], "id": ""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := parseImageInfo(b)
		if err != nil {
			if !errors.Is(err, steps.ErrArgs) {
				t.Errorf("parseImageInfo(%q) = %v", b, err)
			}
			return
		}
		if d, url, err := i.digest(); (err == nil) == (d.IsZero() && url == "") || err != nil && !errors.Is(err, steps.ErrArgs) {
			t.Errorf("digest of %q = %v, %v", b, d, err)
		}
		if _, err := i.sources(steps.Host{}); err != nil && !errors.Is(err, steps.ErrArgs) {
			t.Errorf("sources of %q = %v", b, err)
		}
	})
}
