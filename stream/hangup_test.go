// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// transportFunc is a transport of a test.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// late is a body that ends in good order, but only when the request is given up.
type late struct{ ctx context.Context }

func (l late) Read([]byte) (int, error) {
	<-l.ctx.Done()
	return 0, io.EOF
}
func (late) Close() error { return nil }

// A server's program that is told that we hung up may answer still, and the answer may reach us: Go's transport then returns it.
// It is not the image, however much it looks like a short one.
func TestAnswerToHangingUp(t *testing.T) {
	response := func(body io.ReadCloser, length int64) *http.Response {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: body, ContentLength: length}
	}
	for _, test := range []struct {
		name      string
		transport transportFunc
	}{
		{"empty answer", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return response(io.NopCloser(strings.NewReader("")), 0), nil
		}},
		{"end of a body of unknown length", func(r *http.Request) (*http.Response, error) {
			return response(late{r.Context()}, -1), nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			src, err := NewHTTP("http://h/image", HTTPOptions{Transport: test.transport, Stall: 20 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			body, err := src.Open(t.Context(), 0)
			if err == nil {
				defer body.Close()
				_, err = io.ReadAll(body)
			}
			if !errors.Is(err, errStalled) || IsFinal(err) {
				t.Errorf("got %v, want a stall, which may be tried again", err)
			}
		})
	}
}
