// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ironhand/ironhand/image/qcow2"
	"github.com/ironhand/ironhand/stream"
)

// qcow is the disk in a qcow2 image.
type qcow struct{ *qcow2.Reader }

func (q qcow) Next() (stream.Extent, error) {
	p, err := q.Reader.Next()
	return stream.Extent{Offset: p.Offset, Length: p.Length, Hole: p.Hole}, err
}

// openQCOW2 reads the tables of a qcow2 image, if they can be had before all else, and returns the disk in it and the disk's first stream.HeadSize bytes.
func openQCOW2(q *qcow2.Reader, reader *stream.Reader, content *stream.Content, diskSize int64) (x stream.Extents, start []byte, err error) {
	if q.Size() > diskSize {
		return nil, nil, fmt.Errorf("%w: %d bytes, the disk has %d", stream.ErrTooLarge, q.Size(), diskSize)
	}
	if content.Compression == stream.Plain {
		err = q.ReadAhead(reader.ReadAt, reader.Size())
		if err == nil {
			start, err = q.Start(reader.ReadAt, stream.HeadSize)
			return stream.Sparse(qcow{q}), start, err
		}
		if !errors.Is(err, stream.ErrNoRanges) && !errors.Is(err, qcow2.ErrScattered) {
			return nil, nil, err
		}
	}
	b := &begun{Extents: qcow{q}}
	start, err = b.start(stream.HeadSize)
	return stream.Sparse(b), start, err
}

// begun is extents of which the first were read already.
type begun struct {
	stream.Extents
	parts []begunPart
	last  stream.Extent // follows them: what was not read of the last; empty if all of it was
	rest  io.Reader     // of the present part; nil if it was not read already
}

type begunPart struct {
	extent  stream.Extent
	content []byte
}

const (
	mostBegun = 16 << 20 // bytes that are read to find the start of a disk
	mostParts = 1 << 16  // that they are in
)

// start reads extents until the first n bytes of the disk, as far as it has so many, are there, and returns them.
func (b *begun) start(n int64) ([]byte, error) {
	start := make([]byte, min(n, b.Size()))
	missing, kept := int64(len(start)), int64(0)
	for missing > 0 {
		e, err := b.Extents.Next()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		wanted := max(0, min(e.Length, int64(len(start))-e.Offset))
		missing -= wanted
		take := e.Length
		if missing == 0 && !e.Hole {
			take = wanted
			b.last = stream.Extent{Offset: e.Offset + take, Length: e.Length - take}
		}
		part := begunPart{extent: stream.Extent{Offset: e.Offset, Length: take, Hole: e.Hole}}
		if !e.Hole {
			if kept += take; kept > mostBegun || len(b.parts) > mostParts {
				return nil, fmt.Errorf("the start of the disk is not within the first %d MiB of the image: publish it unpacked on a server that sends parts of files", mostBegun>>20)
			}
			part.content = make([]byte, take)
			if _, err := io.ReadFull(b.Extents, part.content); err != nil {
				return nil, err
			}
			copy(start[min(e.Offset, int64(len(start))):], part.content)
		}
		b.parts = append(b.parts, part)
	}
	return start, nil
}

func (b *begun) Next() (stream.Extent, error) {
	b.rest = nil
	if len(b.parts) > 0 {
		part := b.parts[0]
		b.parts = b.parts[1:]
		b.rest = bytes.NewReader(part.content)
		return part.extent, nil
	}
	if e := b.last; e.Length > 0 {
		b.last = stream.Extent{}
		return e, nil
	}
	return b.Extents.Next()
}

func (b *begun) Read(p []byte) (int, error) {
	if b.rest == nil {
		return b.Extents.Read(p)
	}
	return b.rest.Read(p)
}
