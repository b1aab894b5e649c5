// SPDX-License-Identifier: Apache-2.0

package ironic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// VersionContinueInspection is the version from which on the answer to inspection data is like that of a lookup, with a token.
const VersionContinueInspection Version = 84

// inspectionRounds is how often all URLs are tried (ironic_python_agent/inspector.py, call_inspector).
const inspectionRounds = 5

// Inspected is the answer to inspection data.
type Inspected struct {
	UUID string // of the node; empty if the server does not say
	// Node and Settings are those of a lookup; Found says whether the server sent them.
	Found    bool
	Node     Node
	Settings Settings
}

// ParseCallbackURL checks the URL that inspection data goes to, which is used as it is.
func ParseCallbackURL(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil {
		return nil, fmt.Errorf("read inspection URL: %w", inner(err))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return nil, fmt.Errorf("read inspection URL %q: not of the form http://host/path or https://host/path", redacted(u))
	}
	return u, nil
}

// ContinueInspection sends inspection data, a JSON object, to the first of the targets that answers. A broken connection leads to the next one; after the
// last, and if a server is busy or broken (409, 5xx), all are tried again, 5 times in all. Any other status than success is final and a [*StatusError].
// Without a version the answer has the node's UUID at most, as of ironic-inspector and Ironic's endpoint of old; see [VersionContinueInspection].
func (c *Client) ContinueInspection(ctx context.Context, targets []*url.URL, data []byte, version Version) (Inspected, error) {
	if len(targets) == 0 {
		return Inspected{}, errors.New("send inspection data: no URL given")
	}
	for round := 1; ; round++ {
		body, err := c.postInspection(ctx, targets, data, version)
		if err == nil {
			return parseInspected(body)
		}
		var status *StatusError
		again := !errors.As(err, &status) || status.Code == http.StatusConflict || status.Code >= http.StatusInternalServerError
		if !again || ctx.Err() != nil || round == inspectionRounds {
			return Inspected{}, fmt.Errorf("send inspection data: %w", err)
		}
		wait := inspectionWait(round)
		c.log.Warn("inspection data not taken yet", "round", round, "err", err, "check", Hint(err), "wait", wait)
		if c.o.OnRetry != nil {
			c.o.OnRetry(round, err, wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Inspected{}, fmt.Errorf("send inspection data: %w, after: %w", ctx.Err(), err)
		}
	}
}

// inspectionWait is the wait after a round: 1.5 * 2^(n-1) seconds, at least 5 and at most 30.
func inspectionWait(round int) time.Duration {
	return min(30*time.Second, max(5*time.Second, 1500*time.Millisecond<<(round-1)))
}

// postInspection is one round. A status that means try again is kept for the end, as another URL may do better.
func (c *Client) postInspection(ctx context.Context, targets []*url.URL, data []byte, version Version) ([]byte, error) {
	var failed error
	for _, u := range targets {
		path := ""
		if strings.HasSuffix(u.Path, "/") { // which joining would drop
			path = "/"
		}
		body, err := c.try(ctx, u, request{
			method: http.MethodPost, path: path, query: u.Query(), version: version, body: data, large: true,
			want: http.StatusAccepted, also: http.StatusOK, // Ironic; ironic-inspector
		})
		var status *StatusError
		if err == nil || errors.As(err, &status) || ctx.Err() != nil {
			return body, err
		}
		if failed == nil {
			failed = err
		} else {
			failed = fmt.Errorf("%w; %w", failed, err)
		}
	}
	return nil, failed
}

// parseInspected reads the answer. One that says nothing is success all the same: the data has arrived.
func parseInspected(body []byte) (Inspected, error) {
	var answer struct {
		UUID string          `json:"uuid"`
		Node json.RawMessage `json:"node"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Inspected{}, nil
	}
	if len(answer.Node) == 0 || string(answer.Node) == "null" {
		return Inspected{UUID: answer.UUID}, nil
	}
	node, settings, err := ParseLookup(body)
	if err != nil {
		return Inspected{}, fmt.Errorf("read answer to inspection data: %w", err)
	}
	return Inspected{UUID: node.UUID, Found: true, Node: node, Settings: settings}, nil
}
