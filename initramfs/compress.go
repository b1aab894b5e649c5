// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Compression says how an initramfs is compressed.
type Compression string

// All that Debian's kernels can read and that is of use: none for tests in virtual machines, where unpacking is slow and
// other archives are appended; zstd, quickly or small.
const (
	None Compression = "none"
	Fast Compression = "fast"
	Best Compression = "best"
)

// zstdWindow bounds what the kernel needs for unpacking. It takes up to 128 MiB (lib/decompress_unzstd.c,
// ZSTD_WINDOWSIZE_MAX), out of the memory of a machine that may have 512.
const zstdWindow = 8 << 20

// maxModule bounds what a compressed file of a kernel is unpacked to, in bytes. The largest module of Debian has 8 MiB.
const maxModule = 128 << 20

// Writer compresses what is written to it into w. It must be closed; w is not.
func (c Compression) Writer(w io.Writer) (io.WriteCloser, error) {
	level := zstd.SpeedBestCompression
	switch c {
	case None:
		return nopCloser{w}, nil
	case Fast:
		level = zstd.SpeedDefault
	case Best:
	default:
		return nil, fmt.Errorf("compression %q: want %s, %s or %s", c, None, Fast, Best)
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithWindowSize(zstdWindow), zstd.WithEncoderConcurrency(1))
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// readUnpacked reads a whole file, and unpacks it if its name ends in .xz or .zst.
func readUnpacked(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(name, ".xz"):
		if r, err = xz.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	case strings.HasSuffix(name, ".zst"):
		d, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxModule))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		defer d.Close()
		r = d
	}
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(b) > maxModule {
		err = fmt.Errorf("more than %d bytes", maxModule)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// packed says whether a file of this name is compressed, and what it is called when it is not.
func packed(name string) (plain string, is bool) {
	for _, ext := range []string{".xz", ".zst"} {
		if plain, ok := strings.CutSuffix(name, ext); ok {
			return plain, true
		}
	}
	return name, false
}
