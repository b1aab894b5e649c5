// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// monitor talks to QEMU over QMP (qemu: docs/interop/qmp-spec.txt).
type monitor struct {
	conn    net.Conn
	answers chan qmpMessage // closed at the end
	orders  sync.Mutex      // one order at a time

	mu     sync.Mutex
	reason string // of the last SHUTDOWN event
}

type qmpMessage struct {
	Return json.RawMessage
	Error  *struct{ Class, Desc string }
	Event  string
	Data   struct{ Reason string }
}

// qmpTime is how long QEMU may take for one answer.
const qmpTime = 30 * time.Second

// dialMonitor connects, and follows the events until the connection ends.
func dialMonitor(socket string) (*monitor, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn, answers: make(chan qmpMessage, 1)}
	in := bufio.NewReader(conn)
	if _, err := in.ReadBytes('\n'); err != nil { // the greeting
		conn.Close() // the first error counts
		return nil, fmt.Errorf("QMP greeting: %w", err)
	}
	go m.follow(json.NewDecoder(in))
	if _, err := m.execute("qmp_capabilities", nil); err != nil {
		conn.Close() // the first error counts
		return nil, err
	}
	return m, nil
}

func (m *monitor) follow(in *json.Decoder) {
	defer close(m.answers)
	for {
		var msg qmpMessage
		if in.Decode(&msg) != nil {
			return // QEMU has ended: whoever waits for an answer learns it from the channel
		}
		switch {
		case msg.Event == "SHUTDOWN":
			m.mu.Lock()
			m.reason = msg.Data.Reason
			m.mu.Unlock()
		case msg.Event == "":
			m.answers <- msg
		}
	}
}

func (m *monitor) execute(command string, args map[string]any) (json.RawMessage, error) {
	m.orders.Lock()
	defer m.orders.Unlock()
	order := map[string]any{"execute": command}
	if len(args) > 0 {
		order["arguments"] = args
	}
	if err := json.NewEncoder(m.conn).Encode(order); err != nil {
		return nil, fmt.Errorf("QMP %s: %w", command, err)
	}
	select {
	case msg, ok := <-m.answers:
		if !ok {
			return nil, fmt.Errorf("QMP %s: %w", command, io.ErrUnexpectedEOF)
		}
		if msg.Error != nil {
			return nil, fmt.Errorf("QMP %s: %s", command, msg.Error.Desc)
		}
		return msg.Return, nil
	case <-time.After(qmpTime):
		m.conn.Close() // a late answer must not count for the next order
		return nil, fmt.Errorf("QMP %s: %w", command, errors.New("no answer"))
	}
}

// why returns the reason of the last shutdown: "guest-shutdown", "guest-reset", ... or "" if there was none.
func (m *monitor) why() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reason
}
