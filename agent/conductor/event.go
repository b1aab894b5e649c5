// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"strings"
	"time"
	"unicode"
)

// A Kind says what an [Event] is about.
type Kind string

// The kinds of events, roughly in the order of a deployment.
const (
	EventServer  Kind = "server"  // the conductor itself: listening, paused, resumed
	EventImage   Kind = "image"   // an image became known by its digest, or was fetched
	EventLookup  Kind = "lookup"  // an agent found its node
	EventAgent   Kind = "agent"   // the first heartbeat of an agent, or one after a silence
	EventRefused Kind = "refused" // a request that was answered with an error
	EventCommand Kind = "command" // a command was sent, went on, or ended well
	EventWarning Kind = "warning" // something went wrong that the deployment survives
	EventHandOff Kind = "handoff" // the agent was told to give the machine to the deployed system
	EventBooted  Kind = "booted"  // the deployed system reported
	EventActive  Kind = "active"  // the deployment is complete
	EventFailed  Kind = "failed"  // the deployment failed; Text is the reason
)

// An Event is one thing that happened, for timelines and tests. It never holds a token or another secret, and its
// text is safe to print: one line, no control characters.
type Event struct {
	Time time.Time
	Node string // name of the node; empty if the event belongs to none
	Kind Kind
	Text string
}

// maxText is the length in bytes at which a text from outside is cut.
const maxText = 600

// printable makes a text that came from outside fit for a terminal: control characters and line ends become blanks,
// and what is too long is cut.
func printable(s string) string {
	var cut string
	if len(s) > maxText {
		s, cut = s[:maxText], "..."
	}
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	return strings.TrimSpace(s) + cut
}
