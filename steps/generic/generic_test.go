// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/steps"
)

const sha256Text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// What the conductor says of an image is checked before a disk is looked at.
func TestImageInfo(t *testing.T) {
	for _, test := range []struct {
		name, json, digest, authorization, fails string
	}{
		{"as the conductor sends it", `{"id": "a", "urls": ["https://h/a.img"], "disk_format": "raw", "container_format": "bare", "stream_raw_images": true,
			"os_hash_algo": "sha256", "os_hash_value": "` + sha256Text + `", "node_uuid": "x", "checksum": null}`, "sha256:" + sha256Text, "", ""},
		{"digest in capitals", `{"id": "a", "urls": ["http://h/a"], "os_hash_algo": "sha256", "os_hash_value": "` + strings.ToUpper(sha256Text) + `"}`, "sha256:" + sha256Text, "", ""},
		{"checksum, told by its length", `{"id": "a", "urls": ["http://h/a"], "checksum": "` + sha256Text + `"}`, "sha256:" + sha256Text, "", ""},
		{"gpt is raw", `{"id": "a", "urls": ["http://h/a"], "disk_format": "gpt", "checksum": "` + sha256Text + `"}`, "sha256:" + sha256Text, "", ""},
		{"basic authorisation", `{"id": "a", "urls": ["http://h/a"], "checksum": "` + sha256Text + `", "image_server_auth_strategy": "http_basic", "image_server_user": "u", "image_server_password": "p"}`,
			"sha256:" + sha256Text, "Basic dTpw", ""},
		{"authorisation as it is", `{"id": "a", "urls": ["http://h/a"], "checksum": "` + sha256Text + `", "image_request_authorization": "QmVhcmVyIHg="}`,
			"sha256:" + sha256Text, "Bearer x", ""},
		{"strategy without effect", `{"id": "a", "urls": ["http://h/a"], "checksum": "` + sha256Text + `", "image_server_auth_strategy": "noauth", "image_server_user": "u"}`, "sha256:" + sha256Text, "", ""},

		{"nothing", ``, "", "", "image_info: missing"},
		{"null", `null`, "", "", "image_info: missing"},
		{"not an object", `[]`, "", "", "image_info"},
		{"no id", `{"urls": ["http://h/a"]}`, "", "", "image_info.id"},
		{"no URL", `{"id": "a", "urls": []}`, "", "", "image_info.urls"},
		{"URL of another kind", `{"id": "a", "urls": ["file:///etc/passwd"]}`, "", "", "image_info.urls[0]"},
		{"second URL bad", `{"id": "a", "urls": ["http://h/a", "x"]}`, "", "", "image_info.urls[1]"},
		{"partition image", `{"id": "a", "urls": ["http://h/a"], "image_type": "partition"}`, "", "", "partition images"},
		{"qcow2", `{"id": "a", "urls": ["http://h/a"], "disk_format": "qcow2"}`, "", "", "qemu-img convert"},
		{"proxies", `{"id": "a", "urls": ["http://h/a"], "proxies": {"http": "http://p"}}`, "", "", "image_info.proxies"},
		{"no digest", `{"id": "a", "urls": ["http://h/a"]}`, "", "", "without a digest"},
		{"empty checksum", `{"id": "a", "urls": ["http://h/a"], "checksum": ""}`, "", "", "without a digest"},
		{"value without algorithm", `{"id": "a", "urls": ["http://h/a"], "os_hash_value": "` + sha256Text + `"}`, "", "", "one without the other"},
		{"algorithm without value", `{"id": "a", "urls": ["http://h/a"], "os_hash_algo": "sha256"}`, "", "", "one without the other"},
		{"digest of another length", `{"id": "a", "urls": ["http://h/a"], "os_hash_algo": "sha512", "os_hash_value": "` + sha256Text + `"}`, "", "", "os_hash_value"},
		{"unknown algorithm", `{"id": "a", "urls": ["http://h/a"], "os_hash_algo": "crc32", "os_hash_value": "00000000"}`, "", "", "os_hash_value"},
		{"checksum file", `{"id": "a", "urls": ["http://h/a"], "checksum": "https://h/SHA256SUMS"}`, "", "", "checksum files"},
		{"checksum of no known length", `{"id": "a", "urls": ["http://h/a"], "checksum": "abc"}`, "", "", "checksum"},
		{"user without password", `{"id": "a", "urls": ["http://h/a"], "checksum": "` + sha256Text + `", "image_server_auth_strategy": "http_basic", "image_server_user": "u"}`, "", "", "image_server_password"},
		{"authorisation that is not base64", `{"id": "a", "urls": ["http://h/a"], "checksum": "` + sha256Text + `", "image_request_authorization": "!!open-sesame"}`, "", "", "not base64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			info, err := parseImageInfo(json.RawMessage(test.json))
			var digest, authorization string
			if err == nil {
				d, derr := info.digest()
				digest, err = d.String(), derr
			}
			if err == nil {
				authorization, err = info.authorization()
			}
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) || !errors.Is(err, steps.ErrArgs) {
					t.Errorf("got %v, want an ErrArgs with %q", err, test.fails)
				}
				if err != nil && strings.Contains(err.Error(), "open-sesame") {
					t.Errorf("a secret is in %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if digest != test.digest || authorization != test.authorization {
				t.Errorf("got %s and %q, want %s and %q", digest, authorization, test.digest, test.authorization)
			}
		})
	}
}

// Nothing is opened for a request that makes no sense.
func TestWriteImageRefuses(t *testing.T) {
	host := steps.Host{
		Say:  func(string, ...any) {},
		Open: func(string) (steps.Disk, error) { t.Error("a disk was opened"); return nil, errors.New("no") },
	}
	for _, args := range []string{``, `{}`, `[]`, `{"image_info": 3}`, `{"image_info": {"id": "a", "urls": ["http://h/a"]}}`,
		`{"image_info": {"id": "a", "urls": ["http://h/a"], "checksum": "` + sha256Text + `"}, "configdrive": "not base64!"}`} {
		if _, err := writeImage(t.Context(), host, steps.Job{Args: json.RawMessage(args)}); err == nil {
			t.Errorf("writeImage(%s) succeeded", args)
		}
	}
}

func TestKexec(t *testing.T) {
	host := steps.Host{Say: func(string, ...any) {}, LoadKernel: func(_ context.Context, disk string) (string, error) {
		if disk != "/dev/vda" {
			return "", errors.New("locked down")
		}
		return "its kernel", nil
	}}
	for _, test := range []struct {
		name     string
		deployed *steps.Deployed
		want     string
		fails    string
	}{
		{"deployed", &steps.Deployed{Disk: "/dev/vda"}, "loaded its kernel", ""},
		{"nothing deployed", nil, "", "no image was written"},
		{"refused", &steps.Deployed{Disk: "/dev/vdb"}, "", "/dev/vdb: locked down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := kexec(t.Context(), host, steps.Job{Deployed: test.deployed})
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("kexec() = %v, %v, want an error with %q", got, err, test.fails)
				}
			} else if err != nil || got != test.want {
				t.Errorf("kexec() = %v, %v, want %q", got, err, test.want)
			}
		})
	}
}

func FuzzImageInfo(f *testing.F) {
	f.Add(`{"id": "a", "urls": ["https://h/a.img"], "os_hash_algo": "sha256", "os_hash_value": "` + sha256Text + `"}`)
	f.Add(`{"id": 1, "urls": {}}`)
	f.Fuzz(func(t *testing.T, text string) {
		info, err := parseImageInfo(json.RawMessage(text))
		if err != nil {
			return
		}
		if d, err := info.digest(); err == nil && d.IsZero() {
			t.Error("an image without a digest is accepted")
		}
		_, _ = info.authorization()
	})
}
