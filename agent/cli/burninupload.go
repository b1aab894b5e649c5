// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"time"
)

// uploadLimit is how long a report may take to be sent.
const uploadLimit = 30 * time.Minute

// upload is where a report is sent to.
type upload struct {
	url  *url.URL
	with *web
}

// newUpload reads where to send to. What the URL has of secrets, a login or a query with a signature, is shown to nobody.
func newUpload(to, caFile string) (*upload, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("--upload: want a URL that begins with https:// or http://")
	}
	if u.Scheme == "http" && u.User != nil {
		return nil, fmt.Errorf("--upload %s: a login is not sent without TLS", withoutSecrets(u))
	}
	w, err := newWeb(caFile, "", 0)
	if err != nil {
		return nil, err
	}
	return &upload{u, w}, nil
}

// withoutSecrets is a URL for people.
func withoutSecrets(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func (u *upload) String() string { return withoutSecrets(u.url) }

// send puts the files of a directory there, as a tar archive. A redirect is not followed: who sends a report says where to.
func (u *upload) send(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, uploadLimit)
	defer cancel()
	var size counter
	if err := archive(&size, dir); err != nil {
		return err
	}
	body, w := io.Pipe()
	go func() { w.CloseWithError(archive(w, dir)) }()
	defer body.Close() // ends the archive if it was not read to its end
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, u.url.String(), body)
	if err != nil {
		return fmt.Errorf("send the report to %s: not a URL that can be asked for", u)
	}
	q.ContentLength = int64(size)
	q.Header.Set("Content-Type", "application/x-tar")
	q.Header.Set("User-Agent", "ironhand")
	client := &http.Client{Transport: u.with.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(q)
	if err != nil {
		var about *url.Error
		if errors.As(err, &about) { // it names the URL, whole
			err = about.Err
		}
		return fmt.Errorf("send the report to %s: %w", u, err)
	}
	defer answer.Body.Close() // the status has been read, and nothing else is wanted
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("send the report to %s: the server says %d %s", u, answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	return nil
}

// counter counts what is written to it, bytes.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// archive writes the files of a report, its directory's name before theirs.
func archive(to io.Writer, dir string) error {
	w := tar.NewWriter(to)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() // only read
	for _, pattern := range []string{"*.html", "*.json", "*.jsonl", "logs/*"} {
		names, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := archiveFile(w, root, name, path.Join(path.Base(dir), name)); err != nil {
				return fmt.Errorf("pack %s: %w", name, err)
			}
		}
	}
	return w.Close()
}

// archiveFile adds a regular file; others are left out.
func archiveFile(w *tar.Writer, root *os.Root, name, as string) error {
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	if err := w.WriteHeader(&tar.Header{Name: as, Mode: 0o644, Size: info.Size(), ModTime: info.ModTime().Truncate(time.Second), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(w, io.LimitReader(f, info.Size()))
	return err
}
