// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"context"
	"errors"
	"io"
)

// Source is one place where an image is kept. It makes one attempt at a time: trying again, and going to the next place, is the
// work of [Reader].
//
// An error that trying again cannot mend is marked with [Final]; all others are taken for a passing trouble of the network.
type Source interface {
	// Open returns the image as it is published, from the byte at offset on. ctx governs the reading as well as the opening.
	// Once an object has been seen, Open returns bytes of that very object or an error that wraps ErrChanged.
	Open(ctx context.Context, offset int64) (io.ReadCloser, error)
	// Size is the length in bytes of the image as it is published; -1 if not known, which it may be until Open has returned.
	Size() int64
	// String names the source for people, never with credentials.
	String() string
}

// Ranger is a Source that can hand out a part of the image.
type Ranger interface {
	Source
	// OpenRange returns up to length bytes of the image from offset on, as Open does; a server may send fewer, and from the first byte on the whole. The
	// error wraps ErrNoRanges if the server only has the whole.
	OpenRange(ctx context.Context, offset, length int64) (io.ReadCloser, error)
}

// ErrNoRanges says that a part of an image cannot be had without what comes before it.
var ErrNoRanges = errors.New("the server does not send parts of the image")

// ErrChanged says that what is at the source now is not, or not provably, what was there when reading began.
var ErrChanged = errors.New("image changed at its source")

// Final marks err as one that does not go away when the same source is tried again.
func Final(err error) error { return &finalError{err} }

// IsFinal tells whether err, or an error that it wraps, was marked with [Final].
func IsFinal(err error) bool {
	_, ok := errors.AsType[*finalError](err)
	return ok
}

type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }

// openEnded is what a body offers whose io.EOF may be that of a connection that broke.
type openEnded interface {
	OpenEnd() bool
}

// wholer is what a body offers that may be the whole image though a part was asked for.
type wholer interface {
	Whole() bool
}

// skipper is what a body offers that had to read the image from its start to get to the offset it was asked for.
type skipper interface {
	Skipped() int64 // bytes read and thrown away
}

// Swarm is a Source that has the parts of the image in no order, because others fetch them too, and have from it what it has got. It is read in order by
// Open, or out of order by Place, and not by both but for what Open reads after Place.
type Swarm interface {
	Source
	// Start returns the first HeadSize bytes of the image, or all if it has fewer. It comes before Place and Open.
	Start(ctx context.Context) ([]byte, error)
	// Place returns the parts of the image as they come, each proven by itself, for Write, and the Target that Write has to write to, which is dst. ctx ends
	// their coming. The error wraps errors.ErrUnsupported if the image can be read in order only.
	Place(ctx context.Context, dst Target, m *Meter) (Target, Extents, error)
}
