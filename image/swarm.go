// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ironhand/ironhand/stream"
)

// openFor is open for a whole disk, and returns what to write to. What comes from a swarm, and is the bytes of a disk, comes in any order; a packed image and qcow2 do not.
func (s Spec) openFor(ctx context.Context, meter *stream.Meter, dst Disk) (*opened, stream.Target, error) {
	swarm := s.swarm()
	if swarm != nil && s.Format != QCOW2 {
		meter.Announce(swarm.String(), swarm.Size())
		start, err := swarm.Start(ctx)
		if err != nil {
			return nil, nil, err
		}
		if stream.IsDisk(start) {
			o, target, err := s.openPlaced(ctx, meter, dst, swarm, start)
			if !errors.Is(err, errors.ErrUnsupported) {
				return o, target, err
			}
		}
	}
	o, err := s.open(ctx, meter, dst.Size())
	return o, dst, err
}

// swarm is the source, if it is one that others share in; nil if not.
func (s Spec) swarm() stream.Swarm {
	if len(s.Sources) != 1 {
		return nil
	}
	swarm, _ := s.Sources[0].(stream.Swarm)
	return swarm
}

// openPlaced opens an image whose parts come in any order. What proves the whole of it is computed in order, behind, from what is on the disk.
func (s Spec) openPlaced(ctx context.Context, meter *stream.Meter, dst Disk, swarm stream.Swarm, start []byte) (*opened, stream.Target, error) {
	if _, err := s.window(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	target, x, err := swarm.Place(ctx, dst, meter)
	if err != nil {
		cancel(nil)
		return nil, nil, err
	}
	o := &opened{extents: stream.Sparse(x), start: make([]byte, stream.HeadSize), abort: func(err error) { cancel(err) }, format: Raw, compression: stream.Plain, verify: func() error { return nil }}
	copy(o.start, start) // as it will be on the disk
	o.closers = []io.Closer{closer(func() { cancel(nil) })}
	if s.Digest.IsZero() && s.Content.IsZero() && s.Signature.IsZero() {
		return o, target, nil // each part is proven by itself
	}
	reader := stream.NewReader(ctx, s.Sources, s.Digest, stream.ReaderOptions{Patience: s.Patience, Log: s.Log, Signature: s.Signature, Ahead: 1}) // the window has the memory
	done := make(chan error, 1)
	go func() {
		err := s.prove(reader)
		if err != nil {
			cancel(err) // what is left need not come
		}
		done <- err
	}()
	o.verify = func() error { return <-done }
	o.closers = append(o.closers, reader)
	return o, target, nil
}

// prove reads the whole image, for its digests and its signature.
func (s Spec) prove(reader *stream.Reader) error {
	if !s.Content.IsZero() {
		content := s.Content.Reader(reader)
		if _, err := io.Copy(io.Discard, content); err != nil {
			return err
		}
		if err := content.Verify(); err != nil {
			return fmt.Errorf("content of the disk: %w", err)
		}
	}
	return reader.Verify()
}

type closer func()

func (c closer) Close() error { c(); return nil }
