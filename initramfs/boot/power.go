// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// ErrNoInit says that process 1 of this machine is not ours: this is not the ramdisk.
var ErrNoInit = errors.New("process 1 is not ironhand's")

// The control socket takes one order for each connection, a line that holds the String of a How, and answers with one line: "ok", or
// the reason why not. Only root can reach it.
const (
	maxOrder  = 64
	maxAnswer = 1024
	orderTime = 10 * time.Second
	downTime  = 2 * time.Minute // more than process 1 takes for all that it does at the end
)

// Power makes process 1 take the machine down: it ends all processes, the agent too, syncs and unmounts, and powers off, reboots,
// or jumps into the kernel that [LoadKernel] has loaded. An error means that the machine runs on. Otherwise Power waits for the end; it
// returns nil when ctx ends before. Outside the ramdisk the error is [ErrNoInit].
func Power(ctx context.Context, how How) error {
	if err := order(ctx, controlSocket, how); err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(downTime):
		return fmt.Errorf("%s: process 1 has agreed, but the machine runs on", how)
	}
}

// order gives an order to the process 1 that listens at path.
func order(ctx context.Context, path string, how How) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoInit, err)
	}
	defer conn.Close() // the answer has been read, or lost
	if err := conn.SetDeadline(time.Now().Add(orderTime)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, how); err != nil {
		return fmt.Errorf("ask process 1: %w", err)
	}
	answer, err := readLine(conn, maxAnswer)
	if err != nil {
		return fmt.Errorf("ask process 1: %w", err)
	}
	if answer != "ok" {
		return errors.New(answer)
	}
	return nil
}

// answer reads one order from conn, asks accept, and answers. The order is returned if it was accepted.
func answer(conn net.Conn, accept func(How) error) (How, error) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(orderTime)); err != nil {
		return 0, err
	}
	line, err := readLine(conn, maxOrder)
	if err != nil {
		return 0, fmt.Errorf("read order: %w", err)
	}
	how, err := parseHow(line)
	if err == nil {
		err = accept(how)
	}
	if err != nil {
		// Whoever asked learns why; if it is gone, process 1 says it still.
		_, _ = fmt.Fprintln(conn, printable(err.Error()))
		return 0, err
	}
	// The order holds even if nobody waits for the answer.
	_, _ = fmt.Fprintln(conn, "ok")
	return how, nil
}

// readLine reads one line of at most the given number of bytes.
func readLine(r io.Reader, most int64) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, most)).ReadString('\n')
	if errors.Is(err, io.EOF) {
		return "", fmt.Errorf("no line within %d bytes: %w", most, io.ErrUnexpectedEOF)
	}
	return strings.TrimSpace(line), err
}

func parseHow(s string) (How, error) {
	for _, h := range []How{PowerOff, Reboot, Kexec} {
		if s == h.String() {
			return h, nil
		}
	}
	return 0, fmt.Errorf("%.80q is no way to go down", s)
}
