// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/ironhand/ironhand/stream/inflate"
)

// gunzip unpacks the members of a gzip file one after the other, and knows what may come after the last one.
func gunzip(packed *bufio.Reader, put func([]byte) error) error {
	var d inflate.Decoder
	for first := true; ; first = false {
		magic, err := packed.Peek(2)
		switch {
		case first:
		case len(magic) == 0:
			if err == io.EOF {
				err = nil
			}
			return err
		case magic[0] == 0:
			return padding(packed)
		case !bytes.Equal(magic, []byte("\x1f\x8b")):
			return errors.New("what follows a member is neither a member nor zeros")
		}
		if err := member(packed, &d, put); err != nil {
			return short(err)
		}
	}
}

// member unpacks one member: RFC 1952, 2.3.
func member(packed *bufio.Reader, d *inflate.Decoder, put func([]byte) error) error {
	if err := memberHeader(packed); err != nil {
		return err
	}
	sum, size := uint32(0), uint32(0)
	err := d.Stream(packed, func(b []byte) error {
		sum = crc32.Update(sum, crc32.IEEETable, b)
		size += uint32(len(b))
		return put(b)
	})
	if err != nil {
		return err
	}
	var trailer [8]byte
	if _, err := io.ReadFull(packed, trailer[:]); err != nil {
		return io.ErrUnexpectedEOF // or the reader's own error, which counts more
	}
	switch {
	case binary.LittleEndian.Uint32(trailer[:]) != sum:
		return errors.New("the checksum of a member is wrong")
	case binary.LittleEndian.Uint32(trailer[4:]) != size:
		return errors.New("the length of a member is wrong")
	}
	return nil
}

// memberHeader reads past the header of a member, of which nothing is of use here.
func memberHeader(packed *bufio.Reader) error {
	var fixed [10]byte
	if _, err := io.ReadFull(packed, fixed[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	const hasHeaderSum, hasExtra, hasName, hasComment, reserved = 2, 4, 8, 16, 0xe0
	flags := fixed[3]
	if fixed[2] != 8 || flags&reserved != 0 {
		return errors.New("a member is packed in a way that is not known")
	}
	if flags&hasExtra != 0 {
		var n [2]byte
		if _, err := io.ReadFull(packed, n[:]); err != nil {
			return io.ErrUnexpectedEOF
		}
		if _, err := packed.Discard(int(binary.LittleEndian.Uint16(n[:]))); err != nil {
			return err
		}
	}
	for _, text := range []byte{hasName, hasComment} {
		if flags&text == 0 {
			continue
		}
		for {
			if b, err := packed.ReadByte(); err != nil {
				return err
			} else if b == 0 {
				break
			}
		}
	}
	if flags&hasHeaderSum != 0 {
		_, err := packed.Discard(2)
		return err
	}
	return nil
}

// padding reads zeros to the end of the file.
func padding(packed *bufio.Reader) error {
	for {
		b, err := packed.ReadByte()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case b != 0:
			return errors.New("what follows the zeros after the last member is not zero")
		}
	}
}
