// SPDX-License-Identifier: Apache-2.0

package erase

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// rung is one means to erase a whole disk. The means of a disk are tried from the best to the least.
type rung struct {
	name   string
	secure bool // the drive does it by itself, which also reaches what cannot be addressed
	quick  bool // takes no time, as erase_devices_express wants it
	zeros  bool // the disk reads as zeros afterwards, or lies
	run    func(ctx context.Context, disk steps.Disk, show func(fraction float64)) (status string, err error)
}

// capability is what a drive can do by itself.
type capability struct {
	found   []string // in words, for the certificate
	rungs   []rung
	lacking []string // means that it has not, or not here, and why
	blocked error    // why what should work does not: as bad as having failed
}

// overwriting are the means that need nothing of the drive.
func overwriting(o options) []rung {
	if o.iterations > 0 {
		name := fmt.Sprintf("overwrite with %d passes of random data", o.iterations)
		if o.zeroize {
			name += " and one of zeros"
		}
		return []rung{{name: name, zeros: o.zeroize, run: func(ctx context.Context, disk steps.Disk, show func(float64)) (string, error) {
			return "", overwrite(ctx, disk, o.iterations, o.zeroize, show)
		}}}
	}
	return []rung{{name: "overwrite with zeros", zeros: true, run: func(ctx context.Context, disk steps.Disk, show func(float64)) (string, error) {
		return "", zeroAll(ctx, disk, 0, 1, show)
	}}}
}

// plan puts a disk's ladder together. Where the drive's own means are blocked and the conductor's policy does not let it be overwritten instead, it is an error.
func plan(o options, c capability) ([]rung, error) {
	if c.blocked != nil && len(c.rungs) == 0 && !o.goOn {
		return nil, c.blocked
	}
	return slices.Concat(c.rungs, overwriting(o)), nil
}

// stepSize is what is zeroed at a time, bytes.
const stepSize = 64 << 20

// overwrite writes random data over the whole disk, several times, and zeros last.
func overwrite(ctx context.Context, disk steps.Disk, passes int, zeros bool, show func(float64)) error {
	total := passes
	if zeros {
		total++
	}
	var seed [32]byte
	buf := make([]byte, 4<<20)
	for pass := range passes {
		if _, err := rand.Read(seed[:]); err != nil {
			return err
		}
		random := mathrand.NewChaCha8(seed)
		for at := int64(0); at < disk.Size(); {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b := buf[:min(int64(len(buf)), disk.Size()-at)]
			random.Read(b) // never returns an error
			if _, err := disk.WriteAt(b, at); err != nil {
				return fmt.Errorf("pass %d: write %d bytes at %d: %w", pass+1, len(b), at, err)
			}
			at += int64(len(b))
			show((float64(pass) + float64(at)/float64(disk.Size())) / float64(total))
		}
		if err := disk.Sync(); err != nil { // each pass has to reach the medium
			return fmt.Errorf("pass %d: sync: %w", pass+1, err)
		}
	}
	if zeros {
		return zeroAll(ctx, disk, passes, total, show)
	}
	return nil
}

// zeroAll makes the whole disk zero, as one of several passes.
func zeroAll(ctx context.Context, disk steps.Disk, pass, passes int, show func(float64)) error {
	for at := int64(0); at < disk.Size(); {
		n := min(stepSize, disk.Size()-at)
		if err := disk.Zero(ctx, at, n); err != nil {
			return fmt.Errorf("zero %d bytes at %d: %w", n, at, err)
		}
		at += n
		show((float64(pass) + float64(at)/float64(disk.Size())) / float64(passes))
	}
	if err := disk.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// Marks are random data that is written to places of a disk before it is erased. A disk that still has one afterwards was not erased, whatever it says: this works also on a disk that was
// full of zeros, or of what looks random.
const (
	markSize  = 4096 // bytes
	markEvery = 64 << 20
	minMarks  = 64
	maxMarks  = 1024
)

// marks are what was written where.
type marks struct {
	seed [32]byte
	at   []int64 // sorted
}

// mark writes them: at the ends and at places that nobody can foresee.
func mark(ctx context.Context, disk steps.Disk) (marks, error) {
	var m marks
	if _, err := rand.Read(m.seed[:]); err != nil {
		return m, err
	}
	places := disk.Size() / markSize
	if places == 0 {
		return m, fmt.Errorf("has %d bytes", disk.Size())
	}
	m.at = []int64{0, (places - 1) * markSize}
	for range min(max(disk.Size()/markEvery, minMarks), maxMarks) {
		place, err := rand.Int(rand.Reader, big.NewInt(places))
		if err != nil {
			return m, err
		}
		m.at = append(m.at, place.Int64()*markSize)
	}
	slices.Sort(m.at)
	m.at = slices.Compact(m.at)
	err := m.each(ctx, func(at int64, b []byte) error {
		if _, err := disk.WriteAt(b, at); err != nil {
			return fmt.Errorf("write a mark at %d: %w", at, err)
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	if err := disk.Sync(); err != nil {
		return m, fmt.Errorf("write marks: sync: %w", err)
	}
	return m, nil
}

// each makes the marks again.
func (m marks) each(ctx context.Context, f func(at int64, b []byte) error) error {
	random := mathrand.NewChaCha8(m.seed)
	b := make([]byte, markSize)
	for _, at := range m.at {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		random.Read(b) // never returns an error
		if err := f(at, b); err != nil {
			return err
		}
	}
	return nil
}

// Proof is what was read back of an erased disk.
type Proof struct {
	Samples int `json:"samples"` // of 4096 bytes, into which random data had been written before, the two ends among them
	Zero    int `json:"zero"`    // read as zeros; the others had other data
	// Unreadable could not be read before they were written to again, which SCSI allows after a sanitize; they are not among Zero.
	Unreadable int `json:"unreadable,omitempty"`
}

// prove reads the places again. After a drive has erased by itself, what it will not read until it is written to is gone (SBC-4, 5.30: WACEREQ and its like), if that is all that is wrong there.
func (m marks) prove(ctx context.Context, disk steps.Disk, r rung) (Proof, error) {
	var p Proof
	got := make([]byte, markSize)
	return p, m.each(ctx, func(at int64, b []byte) error {
		err := readFull(disk, got, at)
		if err != nil && r.secure {
			if zeroErr := zero(ctx, disk, []span{{at, markSize}}); zeroErr != nil {
				return fmt.Errorf("read back: %w; then %w", err, zeroErr)
			}
			p.Samples++
			p.Unreadable++
			return nil
		}
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		p.Samples++
		i := notZero(got)
		switch {
		case i < 0:
			p.Zero++
		case slices.Equal(got, b):
			return fmt.Errorf("the data at %d is still there: %w", at, errLies)
		case r.zeros:
			return fmt.Errorf("read back: byte %d is %#02x and not zero: %w", at+int64(i), got[i], errLies)
		}
		return nil
	})
}

// attempt is one rung that was tried.
type attempt struct {
	Method string `json:"method"`
	Error  string `json:"error"`
}

// eraseDisk goes down a ladder until a rung holds. From the drive's own means to overwriting it goes only if the conductor's policy allows.
func (j *job) eraseDisk(ctx context.Context, t *target, disk steps.Disk, ladder []rung) (Certificate, error) {
	c := Certificate{
		Device: t.disk.Name, Model: string(t.disk.Model), Serial: string(t.disk.Serial), WWN: string(t.disk.WWN), Size: t.disk.Size,
		Capabilities: append([]string{}, t.capability.found...), Lacking: t.capability.lacking, Started: time.Now().UTC(),
	}
	// What is half erased must not boot, not even by the copy of a partition table at the end.
	if err := zero(ctx, disk, signatureSpans(span{0, disk.Size()}, disk.Size(), int64(disk.SectorSize()))); err != nil {
		return c, err
	}
	var failed []error
	if t.capability.blocked != nil {
		failed = append(failed, t.capability.blocked)
	}
	for i, r := range ladder {
		if i > 0 && !r.secure && ladder[i-1].secure && !j.options.goOn {
			break
		}
		j.host.Say("%s: %s", t.disk.Name, r.name)
		err := j.climb(ctx, t, disk, r, &c)
		if err == nil {
			c.Method, c.Ended = r.name, time.Now().UTC()
			t.erased = disk
			return c, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", r.name, err))
		c.Failed = append(c.Failed, attempt{r.name, err.Error()})
		if ctx.Err() != nil {
			break
		}
		if gone := j.gone(ctx, t); gone != nil {
			failed = append(failed, gone)
			break
		}
		j.host.Say("%s: %s failed: %v", t.disk.Name, r.name, err)
	}
	return c, joined(failed)
}

// joined is one line of several errors.
func joined(errs []error) error {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return &eraseError{strings.Join(texts, "; then "), errs}
}

// climb tries one rung, and proves it.
func (j *job) climb(ctx context.Context, t *target, disk steps.Disk, r rung, c *Certificate) error {
	m, err := mark(ctx, disk)
	if err != nil {
		return err
	}
	status, err := r.run(ctx, disk, func(fraction float64) { j.show(t, r.name, fraction) })
	for _, other := range t.beside { // it may have been erased again
		if d := other.erased; d != nil && r.secure && ctx.Err() == nil {
			if zeroErr := zero(ctx, d, signatureSpans(span{0, d.Size()}, d.Size(), int64(d.SectorSize()))); zeroErr != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", other.disk.Name, zeroErr))
			}
		}
	}
	if err != nil {
		return err
	}
	if c.Proof, err = m.prove(ctx, disk, r); err != nil {
		return err
	}
	c.Status = status
	// What looks random may by chance look like something.
	if err := zero(ctx, disk, signatureSpans(span{0, disk.Size()}, disk.Size(), int64(disk.SectorSize()))); err != nil {
		return err
	}
	return j.forget(ctx, t.disk.Name, disk)
}

// gone says so if the disk is not there any more, or is another one.
func (j *job) gone(ctx context.Context, t *target) error {
	err := steps.SameDisk(ctx, j.host.Machine, t.disk, t.disk.Size, int(t.disk.LogicalSectors))
	if err != nil {
		return fmt.Errorf("the drive vanished: %w", err)
	}
	return nil
}

// errTimeout says that a drive takes longer than it promised, by far.
var errTimeout = errors.New("the drive takes too long")

// blocking runs a command that returns only when the drive is done, and shows how far it is by what fraction returns meanwhile: a negative number if nothing is known.
// A drive may answer that only when it is done. When ctx ends nothing is waited for: the drive cannot be stopped.
func blocking(ctx context.Context, fraction func() float64, show func(float64), command func() error) error {
	done := make(chan error, 1)
	go func() { done <- command() }()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	answer := make(chan float64, 1)
	asking := false
	for {
		select {
		case err := <-done:
			if asking {
				<-answer // the drive may be closed after this
			}
			return err
		case <-tick.C:
			if !asking {
				asking = true
				go func() { answer <- fraction() }()
			}
		case f := <-answer:
			asking = false
			if f >= 0 {
				show(f)
			}
		case <-ctx.Done():
			return fmt.Errorf("the drive goes on erasing by itself: %w", context.Cause(ctx))
		}
	}
}

// elapsed returns how much of a time that a drive promised is over, from now on.
func elapsed(promised time.Duration) func() float64 {
	start := time.Now()
	return func() float64 {
		if promised == 0 {
			return -1
		}
		return min(float64(time.Since(start))/float64(promised), 0.99)
	}
}

const (
	pollWait     = 2 * time.Second
	pollFailures = 30 // in a row, before a drive that does not answer is given up
)

// polled asks a drive that works in the background how far it is, until it is done or takes longer than limit.
func polled(ctx context.Context, limit time.Duration, show func(float64), ask func() (done bool, fraction float64, err error)) error {
	start := time.Now()
	for failures := 0; ; {
		done, fraction, err := ask()
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			failures = 0
			show(fraction)
		case errors.Is(err, errDefinite):
			return err
		default:
			if failures++; failures >= pollFailures {
				return fmt.Errorf("ask how far it is: %w", err)
			}
		}
		if time.Since(start) > limit {
			return fmt.Errorf("%w: not done after %v", errTimeout, limit)
		}
		select {
		case <-time.After(pollWait):
		case <-ctx.Done():
			return fmt.Errorf("the drive goes on erasing by itself: %w", context.Cause(ctx))
		}
	}
}

// errDefinite is in the errors of a drive that says it has failed, where asking again is no use.
var errDefinite = errors.New("the drive says that it failed")

// limit is how long a drive may take that promised to be done in a time; 0 is no promise.
func limit(promised, otherwise time.Duration) time.Duration {
	if promised == 0 {
		return otherwise
	}
	return 3*promised + 10*time.Minute
}
