// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// flaky is a source that breaks as its list of answers says, and works when the list is over.
type flaky struct {
	name    string
	content []byte
	size    int64    // as told; 0 stands for the right one
	answers []answer // to one Open each
	opened  []string // the offsets asked for
}

// answer is an error in opening, or the error after some bytes.
type answer struct {
	open  error
	bytes int
	err   error // after these bytes; nil stands for a connection that ends
}

func (f *flaky) Open(_ context.Context, offset int64) (io.ReadCloser, error) {
	f.opened = append(f.opened, fmt.Sprintf("%d", offset))
	if len(f.answers) == 0 {
		return io.NopCloser(bytes.NewReader(f.content[offset:])), nil
	}
	a := f.answers[0]
	f.answers = f.answers[1:]
	if a.open != nil {
		return nil, a.open
	}
	rest := f.content[offset:]
	r := io.Reader(bytes.NewReader(rest[:min(a.bytes, len(rest))]))
	if a.err != nil {
		r = io.MultiReader(r, &broken{a.err})
	}
	return io.NopCloser(r), nil
}

func (f *flaky) Size() int64 {
	if f.size != 0 {
		return f.size
	}
	return int64(len(f.content))
}

func (f *flaky) String() string { return f.name }

type broken struct{ err error }

func (b *broken) Read([]byte) (int, error) { return 0, b.err }

func forever(a answer) []answer {
	all := make([]answer, 10_000)
	for i := range all {
		all[i] = a
	}
	return all
}

func TestResume(t *testing.T) {
	content := noise(1 << 20)
	proof := sha256Of(content)
	reset := errors.New("connection reset")
	busy := &StatusError{URL: "http://a", Status: http.StatusServiceUnavailable, After: time.Minute}
	gone := Final(&StatusError{URL: "http://a", Status: http.StatusGone})

	for _, tt := range []struct {
		name     string
		a, b     []answer
		oneOnly  bool // there is no b
		bSize    int64
		want     Digest
		patience time.Duration
		opened   string // what a and b were asked for
		least    time.Duration
		most     time.Duration
		err      string
		is       error
	}{
		{name: "ten cuts cost little", oneOnly: true, a: []answer{{bytes: 70_000}, {bytes: 70_000, err: reset}, {bytes: 70_000}, {bytes: 70_000, err: reset},
			{bytes: 70_000}, {bytes: 70_000}, {bytes: 70_000}, {bytes: 70_000}, {bytes: 70_000}, {bytes: 70_000}},
			opened: "0 70000 140000 210000 280000 350000 420000 490000 560000 630000 700000 / ", most: 2 * time.Second},
		{name: "Retry-After is honoured", oneOnly: true, a: []answer{{open: busy}, {open: busy}}, opened: "0 0 0 / ", least: 2 * time.Minute, most: 2*time.Minute + time.Second},
		{name: "away for a minute", oneOnly: true, a: []answer{{open: reset}, {open: reset}, {open: reset}, {open: reset}, {open: reset}, {open: reset}, {open: reset}},
			least: 3 * time.Second, most: time.Minute},
		{name: "away for ever", oneOnly: true, a: forever(answer{open: reset}), least: 5 * time.Minute, most: 5*time.Minute + time.Second, err: "no 65536 bytes in 5m0s", is: reset},
		{name: "single bytes for ever", oneOnly: true, a: forever(answer{bytes: 1}), least: 5 * time.Minute, most: 5*time.Minute + time.Second, is: io.ErrUnexpectedEOF},
		{name: "own patience", oneOnly: true, patience: 10 * time.Second, a: forever(answer{open: busy}), least: 10 * time.Second, most: 11 * time.Second, is: busy},
		{name: "final at once", oneOnly: true, a: []answer{{open: gone}}, opened: "0 / ", is: gone},
		{name: "final in the middle", oneOnly: true, a: []answer{{bytes: 100}, {open: gone}}, opened: "0 100 / ", is: gone},

		{name: "next mirror at the start", a: []answer{{open: gone}}, opened: "0 / 0", most: time.Millisecond},
		{name: "next mirror in the middle", want: proof, a: []answer{{bytes: 100}, {open: gone}}, opened: "0 100 / 100"},
		{name: "next mirror after three failures", want: proof, a: append([]answer{{bytes: 100}}, forever(answer{open: reset})...), opened: "0 100 100 / 100"},
		{name: "next mirror at once when busy", want: proof, a: []answer{{open: busy}}, opened: "0 / 0", most: time.Second},
		{name: "and back again", want: proof, a: []answer{{bytes: 100, err: busy}}, b: []answer{{bytes: 50, err: gone}}, opened: "0 150 / 100"},
		{name: "both away for ever", want: proof, a: forever(answer{open: reset}), b: forever(answer{open: reset}), least: 5 * time.Minute, most: 5*time.Minute + time.Second, is: reset},
		{name: "both gone", a: []answer{{open: gone}}, b: []answer{{open: Final(reset)}}, opened: "0 / 0", err: "410 Gone", is: reset},
		{name: "unproven mirror in the middle", a: []answer{{bytes: 100}, {open: gone}}, opened: "0 100 / ", err: "go on at byte 100 from b: no digest is given", is: gone},
		{name: "mirror of another length", want: proof, bSize: 7, a: []answer{{bytes: 100}, {open: gone}}, opened: "0 100 / 100", err: "b holds 7 bytes, not 1048576", is: ErrChanged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &flaky{name: "a", content: content, answers: tt.a}
				b := &flaky{name: "b", content: content, answers: tt.b, size: tt.bSize}
				sources := []Source{a, b}
				if tt.oneOnly {
					sources = sources[:1]
				}
				start := time.Now()
				got, err := readAll(NewReader(t.Context(), sources, tt.want, ReaderOptions{Patience: tt.patience}))
				took := time.Since(start)

				if opened := strings.Join(a.opened, " ") + " / " + strings.Join(b.opened, " "); tt.opened != "" && opened != tt.opened {
					t.Errorf("opened %s, want %s", opened, tt.opened)
				}
				if took < tt.least || tt.most > 0 && took > tt.most {
					t.Errorf("took %v, want %v to %v", took, tt.least, tt.most)
				}
				if tt.err != "" || tt.is != nil {
					if err == nil || !strings.Contains(err.Error(), tt.err) || tt.is != nil && !errors.Is(err, tt.is) {
						t.Fatalf("error is %v\nwant one with %q that is %v", err, tt.err, tt.is)
					}
					return
				}
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
			})
		})
	}
}

// A disk that takes nothing for longer than we are patient is no trouble of the source: the connection that broke meanwhile is made anew.
func TestPatienceWithASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := noise(20 << 20)
		s := &flaky{name: "a", content: content, answers: []answer{{bytes: 9 << 20, err: errors.New("connection reset")}}}
		r := NewReader(t.Context(), []Source{s}, sha256Of(content), ReaderOptions{Patience: time.Second})
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := r.Verify(); err != nil {
			t.Errorf("Verify() = %v", err)
		}
	})
}

func TestReaderSize(t *testing.T) {
	for _, tt := range []struct {
		name       string
		told, want int64
	}{
		{"told", 100, 100},
		{"not told", -1, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(t.Context(), []Source{&flaky{content: noise(100), size: tt.told}}, Digest{}, ReaderOptions{})
			defer r.Close()
			if _, err := r.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			// The end may have been seen by now.
			if got := r.Size(); got != tt.want && got != 100 {
				t.Errorf("Size() = %d after the first Read, want %d", got, tt.want)
			}
		})
	}
}

func TestReaderBad(t *testing.T) {
	content := noise(100)
	for _, tt := range []struct {
		name    string
		sources []Source
		want    Digest
		err     string
	}{
		{"no source", nil, Digest{}, "no source"},
		{"unknown algorithm", []Source{&flaky{content: content}}, Digest{"crc32", "00"}, "unknown algorithm"},
		{"wrong digest", []Source{&flaky{content: content}}, sha256Of(nil), "digest does not match: want sha256:e3b0c442"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readAll(NewReader(t.Context(), tt.sources, tt.want, ReaderOptions{}))
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error is %v, want one with %q", err, tt.err)
			}
		})
	}
}

// What nobody has read is part of the digest.
func TestVerifyReadsTheRest(t *testing.T) {
	content := noise(20 << 20) // more than a Reader holds
	for _, tt := range []struct {
		name string
		want Digest
		is   error
	}{
		{"right", sha256Of(content), nil},
		{"wrong at the end", sha256Of(append(content[:len(content)-1:len(content)-1], 0)), ErrDigest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(t.Context(), []Source{&flaky{content: content}}, tt.want, ReaderOptions{})
			defer r.Close()
			if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(); !errors.Is(err, tt.is) {
				t.Errorf("Verify() = %v, want %v", err, tt.is)
			}
		})
	}
}

func TestMeter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter()
		var rates []int64
		stop := m.Report(t.Context(), time.Second, func(p Progress) { rates = append(rates, p.Rate) })
		for i := range 30 {
			m.read.Add(1000)
			if i >= 15 {
				m.read.Add(1000) // twice as fast from here on
			}
			time.Sleep(time.Second)
		}
		stop()
		stop()
		m.read.Add(1)
		time.Sleep(time.Hour) // the report is over
		if len(rates) < 30 || len(rates) > 31 {
			t.Fatalf("reported %d times in 30 s", len(rates))
		}
		if early, late := rates[10], rates[len(rates)-1]; early < 900 || early > 1200 || late < 1700 || late > 2300 {
			t.Errorf("rate %d, then %d; want about 1000, then 2000 (%v)", early, late, rates)
		}
	})
}
