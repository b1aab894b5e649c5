// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"regexp"
	"strings"
	"sync"
)

// console keeps what a machine has printed, without what steers a terminal.
type console struct {
	mu      sync.Mutex
	text    []byte
	escape  escape
	seen    int           // up to here a match has been found
	changed chan struct{} // closed and replaced when text comes
}

type escape int

const (
	plain    escape = iota
	began           // after ESC
	sequence        // after ESC [
)

func newConsole() *console { return &console{changed: make(chan struct{})} }

// Write takes what the machine prints.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range p {
		switch {
		case c.escape == began && b == '[':
			c.escape = sequence
		case c.escape == began:
			c.escape = plain
		case c.escape == sequence:
			if b >= 0x40 && b <= 0x7e {
				c.escape = plain
			}
		case b == 0x1b:
			c.escape = began
		case b != '\r' && b != 0:
			c.text = append(c.text, b)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return len(p), nil
}

// find looks for re after the last match, and goes on behind it. If there is none, more is closed when there is more to look at.
func (c *console) find(re *regexp.Regexp) (match []string, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.text[c.seen:]
	at := re.FindSubmatchIndex(rest)
	if at == nil {
		return nil, c.changed
	}
	for i := 0; i < len(at); i += 2 {
		s := ""
		if at[i] >= 0 {
			s = string(rest[at[i]:at[i+1]])
		}
		match = append(match, s)
	}
	c.seen += at[1]
	return match, nil
}

// shows returns a match of re, which may be nil, after the last one that was found.
func (c *console) shows(re *regexp.Regexp) string {
	if re == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(re.Find(c.text[c.seen:]))
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// tail returns the last n lines.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
