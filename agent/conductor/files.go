// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"
)

// image is what a node is told about its image.
type image struct {
	ID         string // its file name
	URL        string
	Torrent    string // URL of its metainfo; empty if it is not shared by BitTorrent
	SHA512     string // hex
	DiskFormat string
}

// isPublic is true for a path that may be published: relative, clean, and with no element that begins with a dot.
func isPublic(name string) bool {
	if !fs.ValidPath(name) || name == "." {
		return false
	}
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, ".") {
			return false
		}
	}
	return true
}

// openPublic opens a regular file below the files directory, wherever links lead.
func (c *Conductor) openPublic(name string) (*os.File, fs.FileInfo, error) {
	if !isPublic(name) {
		return nil, nil, fs.ErrNotExist
	}
	f, err := c.files.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, nil, fs.ErrNotExist
	}
	return f, info, nil
}

// fileURL is where a file is published.
func (c *Conductor) fileURL(name string) string {
	return c.publicURL() + (&url.URL{Path: "/files/" + name}).EscapedPath()
}

// torrentURL is where the metainfo of a file is published.
func (c *Conductor) torrentURL(name string) string {
	return c.publicURL() + (&url.URL{Path: "/torrents/" + name + ".torrent"}).EscapedPath()
}

// serveFile publishes a file, or parts of it, with an entity tag that changes when the file does.
func (c *Conductor) serveFile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("path")
	f, info, err := c.openPublic(name)
	if err != nil {
		c.refuse(w, r, "", http.StatusNotFound, "no such file")
		return
	}
	defer f.Close()
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.Size(), info.ModTime().UnixNano()))
	w.Header().Set("Content-Type", "application/octet-stream")
	counted := &countingWriter{ResponseWriter: w}
	start := time.Now()
	http.ServeContent(counted, r, "", info.ModTime(), f)
	if counted.n >= 1<<20 {
		seconds := max(time.Since(start).Seconds(), 1e-3)
		c.event("", EventImage, "%s took %.1f MiB of %s in %.1f s, %.1f MiB/s", peer(r), float64(counted.n)/(1<<20), name,
			seconds, float64(counted.n)/(1<<20)/seconds)
	}
}

type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.n += int64(n)
	return n, err
}

// prepareImage finds out what a node must be told about its image. For a file without a known digest it reads it all.
func (c *Conductor) prepareImage(ctx context.Context, i Image) (*image, error) {
	if i.URL != "" {
		u, err := url.Parse(i.URL)
		if err != nil {
			return nil, err
		}
		return &image{ID: path.Base(u.Path), URL: i.URL, SHA512: i.SHA512, DiskFormat: i.DiskFormat}, nil
	}
	f, info, err := c.openPublic(i.File)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.File, err)
	}
	defer f.Close()
	digest := i.SHA512
	if digest == "" {
		digest, err = c.digestBeside(i.File)
	}
	if errors.Is(err, fs.ErrNotExist) {
		digest, err = digestOf(ctx, f)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.File, err)
	}
	c.event("", EventImage, "%s: %.1f MiB, SHA-512 %s...", i.File, float64(info.Size())/(1<<20), digest[:16])
	made := &image{ID: path.Base(i.File), URL: c.fileURL(i.File), SHA512: digest, DiskFormat: i.DiskFormat}
	if i.Torrent {
		if err := c.swarms.publish(ctx, c, i.File, made.URL); err != nil {
			return nil, fmt.Errorf("image %s: %w", i.File, err)
		}
		made.Torrent = c.torrentURL(i.File)
	}
	return made, nil
}

// digestBeside reads FILE.sha512: the digest alone, or a line as sha512sum writes it. fs.ErrNotExist: there is none.
func (c *Conductor) digestBeside(name string) (string, error) {
	f, _, err := c.openPublic(name + ".sha512")
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	digest, file, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha512.Size {
		return "", fmt.Errorf("%s.sha512 does not begin with 128 hexadecimal digits", name)
	}
	if file = strings.TrimLeft(file, " *"); file != "" && path.Base(file) != path.Base(name) {
		return "", fmt.Errorf("%s.sha512 is about %s", name, printable(file))
	}
	return strings.ToLower(digest), nil
}

func digestOf(ctx context.Context, f io.Reader) (string, error) {
	h := sha512.New()
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		switch _, err := io.CopyN(h, f, 16<<20); err {
		case nil:
		case io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		default:
			return "", err
		}
	}
}
