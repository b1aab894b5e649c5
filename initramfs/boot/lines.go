// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// maxLine bounds a line on the consoles and in the log, in bytes. What is longer goes on in the next line.
const maxLine = 2048

// eachOutputLine reads what a child prints until it ends, and hands on each line without its end, made safe by printable.
func eachOutputLine(r io.Reader, do func(line string)) error {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		b, err := in.ReadSlice('\n')
		if line := strings.TrimRight(string(b), "\r\n"); line != "" || err == nil {
			do(printable(line))
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("read output: %w", err)
		}
	}
}

// printable takes out what could steer a terminal: the agent prints names that come from outside.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r >= ' ' && r < 0x7f || r >= 0xa0 {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
}

// stamp puts the time since power-on before a line, unless the line has such a time.
func stamp(since time.Duration, line string) string {
	if stamped(line) {
		return line
	}
	return fmt.Sprintf("[%8.3f] %s", since.Seconds(), line)
}

// stamped reports whether a line begins as the kernel's and ours do: "[   4.213] ".
func stamped(line string) bool {
	inside, _, ok := strings.Cut(line, "] ")
	if !ok || len(inside) > 16 {
		return false
	}
	number, ok := strings.CutPrefix(inside, "[")
	whole, part, dot := strings.Cut(strings.TrimLeft(number, " "), ".")
	return ok && dot && digits(whole) && digits(part)
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
