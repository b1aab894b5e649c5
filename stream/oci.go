// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// maxManifest is how long a manifest or an index may be, bytes. Registries take up to 4 MiB.
const maxManifest = 4 << 20

const mostInManifest = 100_000 // of whatever kind

// What a manifest and an index are called (OCI image specification, and Docker's names before that).
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// OCIOptions says how an image is fetched from a registry. The zero value is usable.
type OCIOptions struct {
	HTTP HTTPOptions // Authorization, Accept and KeepTLS are not used; a Transport must be an *http.Transport
	// Login returns user and password for a repository, HOST/PATH or HOST:PORT/PATH; nil, or "" twice, for none.
	Login func(repository string) (user, password string)
	// Architecture of the machine, as Go calls it; empty for that of this program.
	Architecture string
	Reader       ReaderOptions // for what leads to the image
}

// IsOCI tells whether name is what [NewOCI] takes.
func IsOCI(name string) bool {
	return strings.HasPrefix(name, "oci://") || strings.HasPrefix(name, "oci+http://")
}

// NewOCI finds a disk image in a registry: oci://HOST/REPOSITORY, with :TAG, which is latest otherwise, or @sha256:DIGEST of a manifest or an index at its end. It is that of an index that is for the
// machine's architecture and has the annotation disktype raw or qcow2 (applehv and qemu are other names of these), and of its manifest the only layer, or the only one that is called a disk image. It returns where the image is and the
// digest that it has to have, which the manifest says, whose digest the index or the reference says. With oci+http:// in front, or a host that is this machine, the registry is asked without TLS.
func NewOCI(ctx context.Context, name string, o OCIOptions) (Source, Digest, error) {
	ref, err := parseReference(name)
	if err != nil {
		return nil, Digest{}, err
	}
	bad := func(err error) (Source, Digest, error) { return nil, Digest{}, fmt.Errorf("%s: %w", ref, err) }
	transport, err := newRegistry(ref, o)
	if err != nil {
		return bad(err)
	}
	o.HTTP.Transport, o.HTTP.Proxy, o.HTTP.Authorization = transport, nil, nil
	o.HTTP.Accept = strings.Join([]string{ociIndex, ociManifest, dockerList, dockerManifest}, ", ")

	// 1. The reference leads to an index or a manifest, and an index to a manifest.
	where, want := ref.tag, ref.digest
	if !want.IsZero() {
		where = want.String()
	}
	var m manifest
	for range 3 {
		o.HTTP.KeepTLS = want.IsZero() // nothing else proves what a tag leads to
		src, err := NewHTTP(ref.base+"/manifests/"+where, o.HTTP)
		if err != nil {
			return bad(err)
		}
		text, err := fetchText(ctx, src, want, maxManifest, o.Reader)
		if err == nil {
			m, err = parseManifest(text)
		}
		if err != nil {
			return bad(fmt.Errorf("manifest: %w", err))
		}
		if len(m.Manifests) == 0 {
			break
		}
		next, err := m.choose(cmp.Or(o.Architecture, runtime.GOARCH))
		if err != nil {
			return bad(err)
		}
		want, where = next, next.String()
	}

	// 2. The manifest leads to the image.
	layer, err := m.disk()
	if err != nil {
		return bad(err)
	}
	o.HTTP.Accept, o.HTTP.KeepTLS = "", false
	src, err := NewHTTP(ref.base+"/blobs/"+layer.String(), o.HTTP)
	if err != nil {
		return bad(err)
	}
	return src, layer, nil
}

// reference is what an oci:// URL names.
type reference struct {
	name       string // the URL
	host       string
	repository string // on it
	base       string // URL of the repository
	scope      string // what a token has to be for
	tag        string // "" if there is a digest
	digest     Digest
}

func (r reference) String() string { return r.name }

// The grammar is that of the OCI distribution specification.
var (
	ociRepository = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	ociTag        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	ociHost       = regexp.MustCompile(`^([a-zA-Z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$`)
)

func parseReference(name string) (reference, error) {
	scheme, rest, _ := strings.Cut(name, "://")
	host, repository, _ := strings.Cut(rest, "/")
	if strings.Contains(host, "@") || strings.Contains(rest, "@") && !strings.Contains(rest, "@sha") {
		return reference{}, errors.New("image in a registry: user and password do not belong into the URL")
	}
	bad := func(what string) (reference, error) {
		return reference{}, fmt.Errorf("image in a registry %.300q: %s; want oci://HOST/REPOSITORY:TAG or @sha256:DIGEST", name, what)
	}
	if scheme != "oci" && scheme != "oci+http" {
		return bad("it does not begin with oci://")
	}
	repository, digest, hasDigest := strings.Cut(repository, "@")
	repository, tag, hasTag := strings.Cut(repository, ":")
	r := reference{name: name, host: host, tag: tag}
	if hasDigest {
		algorithm, hex, _ := strings.Cut(digest, ":")
		d, err := ParseDigest(algorithm, hex)
		if err != nil || d.String() != digest || algorithm != "sha256" && algorithm != "sha512" {
			return bad("its digest is none of sha256 or sha512, in small letters")
		}
		r.digest, r.tag = d, ""
	} else if !hasTag {
		r.tag = "latest"
	}
	switch {
	case !ociHost.MatchString(host):
		return bad("there is no host in it")
	case len(repository) > 255 || !ociRepository.MatchString(repository):
		return bad("its repository is not one")
	case !hasDigest && !ociTag.MatchString(r.tag) || tag != "" && !ociTag.MatchString(tag):
		return bad("its tag is not one")
	}
	if host == "docker.io" {
		host = "registry-1.docker.io"
		if !strings.Contains(repository, "/") {
			repository = "library/" + repository
		}
	}
	protocol := "https"
	if scheme == "oci+http" || isLoopback(host) {
		protocol = "http"
	}
	r.repository = repository
	r.base = protocol + "://" + host + "/v2/" + repository
	if _, err := url.Parse(r.base); err != nil {
		return bad("there is no host in it")
	}
	r.scope = "repository:" + repository + ":pull"
	return r, nil
}

// isLoopback tells whether a host, maybe with a port, is this machine: with such a registry one speaks HTTP, as Docker does.
func isLoopback(host string) bool {
	u := url.URL{Host: host}
	if u.Hostname() == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}

// manifest is an index or a manifest: the one has manifests, the other has layers.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	Manifests     []descriptor `json:"manifests"`
	Layers        []descriptor `json:"layers"`
}

// descriptor names a blob or a manifest. Source: OCI image specification, descriptor.md
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
	Platform    struct {
		Architecture string `json:"architecture"`
	} `json:"platform"`
}

func parseManifest(text []byte) (manifest, error) {
	var m manifest
	if len(text) > maxManifest {
		return m, fmt.Errorf("it is longer than %d bytes", maxManifest)
	}
	if bytes.Count(text, []byte(",")) > mostInManifest { // each takes a hundred times its bytes when it is read
		return m, fmt.Errorf("there are more than %d things in it", mostInManifest)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, errors.New("it is not JSON of the form of a manifest")
	}
	if m.SchemaVersion != 2 || len(m.Manifests) > 0 && len(m.Layers) > 0 {
		return m, errors.New("it is neither a manifest nor an index of schema 2")
	}
	return m, nil
}

// digest is that of what d names.
func (d descriptor) digest() (Digest, error) {
	algorithm, hex, _ := strings.Cut(d.Digest, ":")
	if algorithm != "sha256" && algorithm != "sha512" {
		return Digest{}, fmt.Errorf("digest %.140q is none of sha256 or sha512", d.Digest)
	}
	digest, err := ParseDigest(algorithm, hex)
	if err == nil && digest.String() != d.Digest {
		return Digest{}, fmt.Errorf("digest %.140q is not in small letters", d.Digest)
	}
	return digest, err
}

// rank tells how well an image with this annotation disktype can be written, the lower the better: raw needs no tables. It is -1 if it cannot.
// Source: ironic's ironic/common/image_service.py, as are the names of architectures.
func rank(diskType string) int {
	return slices.Index([]string{"raw", "applehv", "qcow2", "qemu", ""}, diskType)
}

// choose returns the digest of the manifest in an index that is for a machine.
func (m manifest) choose(architecture string) (Digest, error) {
	goNames := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}
	var best *descriptor
	var seen []string
	for i, d := range m.Manifests {
		disk := d.Annotations["disktype"]
		machine := cmp.Or(d.Platform.Architecture, d.Annotations["architecture"])
		seen = append(seen, strings.Trim(machine+" "+disk, " "))
		if machine != "" && cmp.Or(goNames[machine], machine) != architecture || rank(disk) < 0 {
			continue
		}
		if best == nil || rank(disk) < rank(best.Annotations["disktype"]) {
			best = &m.Manifests[i]
		}
	}
	if best == nil {
		return Digest{}, fmt.Errorf("it holds no raw or qcow2 disk image for %s, but: %.300s", architecture, strings.Join(seen, ", "))
	}
	return best.digest()
}

// disk returns the digest of the disk image that a manifest is of.
func (m manifest) disk() (Digest, error) {
	var disks []descriptor
	for _, d := range m.Layers {
		if d.isDisk() {
			disks = append(disks, d)
		}
	}
	if len(m.Layers) == 1 && !m.Layers[0].isContainer() {
		disks = m.Layers
	}
	switch {
	case len(m.Layers) == 0:
		return Digest{}, errors.New("its manifest has no layer")
	case len(disks) == 1:
		return disks[0].digest()
	case len(disks) > 1:
		return Digest{}, fmt.Errorf("%d of its layers may be the disk image; name one by a manifest of its own", len(disks))
	case slices.ContainsFunc(m.Layers, descriptor.isContainer):
		return Digest{}, errors.New("it is a container, and not a disk image: its layers are archives of files")
	}
	return Digest{}, fmt.Errorf("none of its %d layers is called a disk image", len(m.Layers))
}

func (d descriptor) title() string { return d.Annotations["org.opencontainers.image.title"] }

// isContainer tells whether d is a layer of a container. What ORAS pushes has the same type, and a name.
func (d descriptor) isContainer() bool {
	return d.title() == "" && (strings.HasPrefix(d.MediaType, "application/vnd.oci.image.layer.") || strings.HasPrefix(d.MediaType, "application/vnd.docker.image.rootfs."))
}

// isDisk tells whether d is called a disk image, by its type, its annotation or its name.
func (d descriptor) isDisk() bool {
	if disk := d.Annotations["disktype"]; disk != "" {
		return rank(disk) >= 0
	}
	for _, word := range []string{"disk-image", "diskimage", "qcow2", "raw-disk", "disk.raw", "vnd.kubevirt.disk"} {
		if strings.Contains(d.MediaType, word) {
			return true
		}
	}
	name := d.title()
	for _, packed := range []string{".gz", ".zst", ".xz", ".bz2", ".lz4"} {
		name = strings.TrimSuffix(name, packed)
	}
	return slices.Contains([]string{".raw", ".img", ".qcow2"}, path.Ext(name))
}
