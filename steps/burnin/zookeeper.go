// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// zoo is a session with a ZooKeeper server, for one goroutine: as much of its protocol as pairing takes. Requests and answers are in order, and all nodes that are made by a session and are
// ephemeral go with it. Whoever waits asks again every second, which keeps the session alive; so there are no pings and no watches.
//
// Source: zookeeper-jute/src/main/resources/zookeeper.jute for the messages, zookeeper's ZooDefs.java and KeeperException.java for the numbers.
type zoo struct {
	conn    net.Conn
	timeout time.Duration // for one answer
	acl     []byte
	xid     int32
	stop    func() bool
}

const (
	zooCreate, zooDelete, zooChildren = 1, 2, 8
	zooAuth, zooCloseSession          = 100, -11
	zooAuthXID                        = -4

	zooEphemeral, zooSequence = 1, 2 // flags of create

	zooNoNode, zooNodeExists = -101, -110

	zooMost     = 1 << 20 // bytes of one message: ZooKeeper's own limit, jute.maxbuffer
	zooMostList = 10000   // children
	zooDial     = 10 * time.Second
	zooEnd      = time.Second
)

// zooError is what a server answers in place of a result.
type zooError int32

func (e zooError) Error() string {
	text := map[zooError]string{zooNoNode: "no such node", zooNodeExists: "the node is there", -102: "not authorised", -112: "the session has expired", -115: "user or password is wrong", -4: "the connection was lost"}[e]
	if text == "" {
		text = "error"
	}
	return fmt.Sprintf("ZooKeeper says: %s (%d)", text, int32(e))
}

// dialZoo opens a session with the first server that answers. When ctx ends, so does it.
func dialZoo(ctx context.Context, m meeting) (*zoo, error) {
	var errs []error
	for _, host := range m.hosts {
		d := net.Dialer{Timeout: zooDial}
		conn, err := d.DialContext(ctx, "tcp", host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		z := &zoo{conn: conn, timeout: m.session, acl: zooACL("world", "anyone")}
		// What waits for an answer ends; the session can still be closed in good order.
		z.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		if err = z.connect(m); err == nil {
			return z, nil
		}
		z.stop()
		conn.Close() // it failed already
		errs = append(errs, fmt.Errorf("%s: %w", host, err))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, errors.Join(errs...)
}

func (z *zoo) connect(m meeting) error {
	b := binary.BigEndian.AppendUint32(nil, 0)                             // version of the protocol
	b = binary.BigEndian.AppendUint64(b, 0)                                // nothing seen yet
	b = binary.BigEndian.AppendUint32(b, uint32(m.session.Milliseconds())) // session's timeout
	b = binary.BigEndian.AppendUint64(b, 0)                                // a new session
	b = append(zooBuffer(b, make([]byte, 16)), 0)                          // no password of an old one; not for reading alone
	answer, err := z.exchange(b)
	if err != nil {
		return err
	}
	if len(answer) < 16 || binary.BigEndian.Uint32(answer[4:]) == 0 {
		return errors.New("ZooKeeper gives no session")
	}
	if m.user == "" {
		return nil
	}
	// As kazoo does, for its nodes: theirs alone who know the password.
	digest := sha1.Sum([]byte(m.user + ":" + m.password))
	z.acl = zooACL("digest", m.user+":"+base64.StdEncoding.EncodeToString(digest[:]))
	_, err = z.request(zooAuthXID, zooAuth, zooBuffer(zooString(binary.BigEndian.AppendUint32(nil, 0), "digest"), []byte(m.user+":"+m.password)))
	return err
}

// address is this machine's, as the server's network sees it.
func (z *zoo) address() string {
	host, _, err := net.SplitHostPort(z.conn.LocalAddr().String())
	if err != nil {
		return z.conn.LocalAddr().String()
	}
	return host
}

// close ends the session, and with it what it has made.
func (z *zoo) close() {
	z.stop()
	z.timeout = zooEnd
	_, _ = z.call(zooCloseSession, nil) // without an answer the server finds out by itself
	z.conn.Close()                      // nothing is written any more
}

func (z *zoo) create(path string, data []byte, flags uint32) (name string, err error) {
	b := append(zooBuffer(zooString(nil, path), data), z.acl...)
	answer, err := z.call(zooCreate, binary.BigEndian.AppendUint32(b, flags))
	if err != nil {
		return "", fmt.Errorf("make %s: %w", path, err)
	}
	name, _, err = readZooString(answer)
	return name, err
}

// ensure makes a node that stays, if it is not there.
func (z *zoo) ensure(path string) error {
	_, err := z.create(path, nil, 0)
	if errors.Is(err, zooError(zooNodeExists)) {
		return nil
	}
	return err
}

func (z *zoo) remove(path string) error {
	if _, err := z.call(zooDelete, binary.BigEndian.AppendUint32(zooString(nil, path), 0xffffffff)); err != nil { // of any version
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

func (z *zoo) children(path string) ([]string, error) {
	answer, err := z.call(zooChildren, append(zooString(nil, path), 0))
	if err == nil {
		var names []string
		if names, err = parseZooList(answer); err == nil {
			return names, nil
		}
	}
	return nil, fmt.Errorf("list %s: %w", path, err)
}

func (z *zoo) call(kind int32, body []byte) ([]byte, error) {
	z.xid++
	return z.request(z.xid, kind, body)
}

func (z *zoo) request(xid, kind int32, body []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint32(nil, uint32(xid))
	b = binary.BigEndian.AppendUint32(b, uint32(kind))
	answer, err := z.exchange(append(b, body...))
	if err != nil {
		return nil, err
	}
	if len(answer) < 16 {
		return nil, errors.New("ZooKeeper's answer is cut off")
	}
	if got := int32(binary.BigEndian.Uint32(answer)); got != xid {
		return nil, fmt.Errorf("ZooKeeper answers another question (%d, not %d)", got, xid)
	}
	if code := zooError(binary.BigEndian.Uint32(answer[12:])); code != 0 {
		return nil, code
	}
	return answer[16:], nil
}

// exchange sends one message and reads one.
func (z *zoo) exchange(message []byte) ([]byte, error) {
	if err := z.conn.SetDeadline(time.Now().Add(z.timeout)); err != nil {
		return nil, err
	}
	if _, err := z.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)); err != nil {
		return nil, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(z.conn, head); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head)
	if n > zooMost {
		return nil, fmt.Errorf("ZooKeeper sends %d bytes at once", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(z.conn, b)
	return b, err
}

func zooBuffer(b, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

func zooString(b []byte, s string) []byte { return zooBuffer(b, []byte(s)) }

// zooACL is a list of one entry, with all permissions.
func zooACL(scheme, id string) []byte {
	const all = 31
	b := binary.BigEndian.AppendUint32(nil, 1)
	return zooString(zooString(binary.BigEndian.AppendUint32(b, all), scheme), id)
}

func readZooString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, errors.New("ZooKeeper's answer is cut off")
	}
	n := int32(binary.BigEndian.Uint32(b))
	if b = b[4:]; n < 0 {
		return "", b, nil
	}
	if int(n) > len(b) {
		return "", nil, errors.New("ZooKeeper's answer is cut off")
	}
	return string(b[:n]), b[n:], nil
}

func parseZooList(b []byte) ([]string, error) {
	if len(b) < 4 {
		return nil, errors.New("ZooKeeper's answer is cut off")
	}
	n := int32(binary.BigEndian.Uint32(b))
	if n > zooMostList {
		return nil, fmt.Errorf("%d of them", n)
	}
	b = b[4:]
	names := []string{}
	for range max(n, 0) {
		name, rest, err := readZooString(b)
		if err != nil {
			return nil, err
		}
		names, b = append(names, name), rest
	}
	return names, nil
}
