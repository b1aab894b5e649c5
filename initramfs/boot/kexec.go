// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Kernel is a kernel to jump into.
type Kernel struct {
	Image   io.Reader   // what kexec_file_load(2) takes: on a PC a bzImage; an *os.File is taken from its start and saves memory
	Initrds []io.Reader // put together in this order; none is fine
	Cmdline string
}

const (
	maxKernel = 512 << 20 // bytes
	maxInitrd = 2 << 30   // bytes, of all together

	// maxCmdline is what Linux on a PC can take (COMMAND_LINE_SIZE), without the zero byte.
	maxCmdline = 2047
)

// checkCmdline refuses what the next kernel would cut or misread.
func checkCmdline(s string) error {
	if len(s) > maxCmdline {
		return fmt.Errorf("kernel command line has %d bytes, of at most %d", len(s), maxCmdline)
	}
	if strings.ContainsAny(s, "\x00\n") {
		return fmt.Errorf("kernel command line %.80q has a line break or a zero byte", s)
	}
	return nil
}

// lockdownMode picks the mode in force out of /sys/kernel/security/lockdown, such as "none [integrity] confidentiality"; without lockdown
// it is "none".
func lockdownMode(file string) string {
	_, rest, _ := strings.Cut(file, "[")
	if mode, _, ok := strings.Cut(rest, "]"); ok {
		return mode
	}
	return "none"
}

// memAvailable finds the bytes that can be had without swapping in /proc/meminfo (Documentation/filesystems/proc.rst).
func memAvailable(meminfo string) (int64, error) {
	for line := range strings.Lines(meminfo) {
		if rest, found := strings.CutPrefix(line, "MemAvailable:"); found {
			var kib int64
			if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("read /proc/meminfo: %q: %w", strings.TrimSpace(line), err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("read /proc/meminfo: no MemAvailable")
}

// concat joins archives. Each begins on a multiple of 4 bytes, as the kernel wants it (Documentation/driver-api/early-userspace/buffer-format.rst).
func concat(archives []io.Reader) io.Reader {
	var all []io.Reader
	for _, a := range archives {
		c := &counter{r: a}
		all = append(all, c, &padding{after: c})
	}
	return io.MultiReader(all...)
}

// counter counts what is read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// padding reads as the zeros that fill what was counted up to a multiple of 4.
type padding struct {
	after *counter
	n     int64
}

func (p *padding) Read(b []byte) (int, error) {
	if (p.after.n+p.n)%4 == 0 {
		return 0, io.EOF
	}
	if len(b) == 0 {
		return 0, nil
	}
	b[0] = 0
	p.n++
	return 1, nil
}
