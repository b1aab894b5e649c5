// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// imageInfo is what the conductor says of an image. The keys are Ironic's.
// Source: ironic's ironic/drivers/modules/agent.py, ironic-python-agent's
// ironic_python_agent/extensions/standby.py.
type imageInfo struct {
	ID            string   `json:"id"`
	URLs          []string `json:"urls"`
	DiskFormat    string   `json:"disk_format"`
	ImageType     string   `json:"image_type"`
	Checksum      *string  `json:"checksum"`
	HashAlgo      *string  `json:"os_hash_algo"`
	HashValue     *string  `json:"os_hash_value"`
	ConfigDrive   *string  `json:"configdrive"`
	AuthStrategy  string   `json:"image_server_auth_strategy"`
	User          string   `json:"image_server_user"`
	Password      string   `json:"image_server_password"`
	Authorization string   `json:"image_request_authorization"` // base64 of the whole header value
	Proxies       struct {
		HTTP  string `json:"http"`
		HTTPS string `json:"https"`
	} `json:"proxies"`
	NoProxy string `json:"no_proxy"` // with proxies only
}

// parseImageInfo reads and checks what can be checked before anything is fetched.
func parseImageInfo(raw json.RawMessage) (imageInfo, error) {
	var i imageInfo
	if len(raw) == 0 || string(raw) == "null" {
		return i, fmt.Errorf("%w: image_info: missing", steps.ErrArgs)
	}
	if err := json.Unmarshal(raw, &i); err != nil {
		return i, fmt.Errorf("%w: image_info: %v", steps.ErrArgs, err)
	}
	bad := func(format string, args ...any) (imageInfo, error) {
		return i, fmt.Errorf("%w: image_info.%s", steps.ErrArgs, fmt.Sprintf(format, args...))
	}
	if i.ID == "" {
		return bad("id: missing")
	}
	if len(i.URLs) == 0 {
		return bad("urls: must be a list of at least one URL")
	}
	for n, one := range i.URLs {
		u, err := url.Parse(one)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return bad("urls[%d]: not a URL that begins with http:// or https://", n)
		}
	}
	switch i.DiskFormat {
	case "", "raw", "gpt", "iso", "unknown", "qcow2":
	default:
		return bad("disk_format: %q cannot be written; convert it with: qemu-img convert -O qcow2", i.DiskFormat)
	}
	if _, err := i.proxy(); err != nil {
		return bad("proxies: %v", err)
	}
	return i, nil
}

// format is what the image must be: what the conductor says, or one of those that it permits (nil: all). Bytes with a partition table are "gpt" to it, and those of a file system "raw".
func (i imageInfo) format(permitted []string) (image.Format, error) {
	plain := "gpt"
	if i.isPartition() {
		plain = "raw"
	}
	said, _ := image.ParseFormat(i.DiskFormat) // parseImageInfo has refused what it does not know, but iso: one that can be written to a disk has a partition table
	may := func(name string) bool { return permitted == nil || slices.Contains(permitted, name) }
	switch said {
	case image.Raw: // the conductor vouches for it
		return image.Raw, nil
	case image.QCOW2:
		if may("qcow2") {
			return image.QCOW2, nil
		}
	default:
		switch {
		case may(plain) && may("qcow2"):
			return image.Auto, nil
		case may(plain):
			return image.Raw, nil
		case may("qcow2"):
			return image.QCOW2, nil
		}
	}
	return "", fmt.Errorf("image %s: %w: the conductor says that it is %q, and permits only %s", i.ID, stream.ErrFormat, i.DiskFormat, cmp.Or(strings.Join(permitted, ", "), "nothing"))
}

// proxy says which proxy to use; nil where none is given, which leaves it to the environment.
func (i imageInfo) proxy() (func(*url.URL) (*url.URL, error), error) {
	if i.Proxies.HTTP == "" && i.Proxies.HTTPS == "" {
		return nil, nil
	}
	return stream.NewProxy(i.Proxies.HTTP, i.Proxies.HTTPS, i.NoProxy)
}

// name is what the image is called in a checksum file.
func (i imageInfo) name() string {
	u, err := url.Parse(i.places()[0])
	if err != nil { // parseImageInfo has refused it
		return ""
	}
	return path.Base(u.Path)
}

// digest is the digest to check, from os_hash_algo and os_hash_value or else from the checksum, whose algorithm is told by its length; or the URL of a
// checksum file that has it, with the algorithm alone if that is given.
func (i imageInfo) digest() (d stream.Digest, checksums string, err error) {
	bad := func(format string, args ...any) (stream.Digest, string, error) {
		return stream.Digest{}, "", fmt.Errorf("%w: image_info.%s", steps.ErrArgs, fmt.Sprintf(format, args...))
	}
	isURL := func(s string) bool {
		return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
	}
	given := func(s *string) bool { return s != nil && *s != "" }
	if given(i.HashAlgo) != given(i.HashValue) {
		return bad("os_hash_algo and os_hash_value: one without the other")
	}
	if given(i.HashAlgo) {
		if isURL(*i.HashValue) {
			return stream.Digest{Algorithm: *i.HashAlgo}, *i.HashValue, nil
		}
		d, err := stream.ParseDigest(*i.HashAlgo, *i.HashValue)
		if err != nil {
			return bad("os_hash_value: %v", err)
		}
		return d, "", nil
	}
	if !given(i.Checksum) {
		return bad("os_hash_value: an image without a digest is not written")
	}
	if isURL(*i.Checksum) {
		return stream.Digest{}, *i.Checksum, nil
	}
	algorithms := map[int]string{32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
	d, err = stream.ParseDigest(algorithms[len(*i.Checksum)], *i.Checksum)
	if err != nil {
		return bad("checksum: %v", err)
	}
	return d, "", nil
}

// authorization is the value of the Authorization header for the image's server, "" for none. ours is how to log in if the conductor says nothing.
func (i imageInfo) authorization(ours func() (user, password string)) (string, error) {
	if i.Authorization != "" {
		b, err := base64.StdEncoding.DecodeString(i.Authorization)
		if err != nil || bytes.ContainsFunc(b, unicode.IsControl) {
			return "", fmt.Errorf("%w: image_info.image_request_authorization: not base64 of one line", steps.ErrArgs)
		}
		return string(b), nil
	}
	if i.AuthStrategy == "http_basic" {
		if i.User == "" || i.Password == "" {
			return "", fmt.Errorf("%w: image_info: image_server_auth_strategy is http_basic without image_server_user and image_server_password", steps.ErrArgs)
		}
		return basic(i.User, i.Password), nil
	}
	if ours != nil {
		return basic(ours()), nil
	}
	return "", nil
}

func basic(user, password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}
