// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// layout makes bytes of words like "data:65536 hole:100", and layoutOf tells them back.
func layout(t testing.TB, words string) []byte {
	t.Helper()
	var b []byte
	for word := range strings.FieldsSeq(words) {
		var n int
		kind, size, _ := strings.Cut(word, ":")
		if _, err := fmt.Sscan(size, &n); err != nil {
			t.Fatal(err)
		}
		switch kind {
		case "data":
			b = append(b, bytes.Repeat([]byte("x"), n)...)
		case "hole":
			b = append(b, make([]byte, n)...)
		}
	}
	return b
}

func layoutOf(x Extents) (words string, content []byte, err error) {
	var all []string
	for {
		e, err := x.Next()
		if err == io.EOF {
			return strings.Join(all, " "), content, nil
		}
		if err != nil {
			return strings.Join(all, " "), content, err
		}
		if e.Offset != int64(len(content)) {
			return "", nil, fmt.Errorf("extent at %d, want %d", e.Offset, len(content))
		}
		kind := "data"
		if e.Hole {
			kind = "hole"
		}
		all = append(all, fmt.Sprintf("%s:%d", kind, e.Length))
		b, err := io.ReadAll(x)
		if err != nil {
			return "", nil, err
		}
		if e.Hole && len(b) == 0 {
			b = make([]byte, e.Length)
		}
		content = append(content, b...)
	}
}

func TestExtents(t *testing.T) {
	gone := errors.New("network is gone")
	for _, tt := range []struct {
		name  string
		in    string
		size  int64 // announced; 0 stands for -1
		after error // of the reader, after its bytes
		want  string
		err   string
	}{
		{name: "empty"},
		{name: "data", in: "data:100", want: "data:100"},
		{name: "hole", in: "hole:100", want: "hole:100"},
		{name: "by blocks", in: "data:65536 hole:131072 data:65536", want: "data:65536 hole:131072 data:65536"},
		{name: "zeros within blocks", in: "data:1 hole:131070 data:1", want: "data:131072"},
		{name: "one byte in a block", in: "hole:65536 data:1 hole:65535 hole:65536", want: "hole:65536 data:65536 hole:65536"},
		{name: "longer than the buffer", in: "data:1048576 data:65536 hole:1048576 hole:7", want: "data:1048576 data:65536 hole:983040 hole:65543"},
		{name: "announced", in: "data:70000", size: 70000, want: "data:70000"},

		{name: "short", in: "data:70000", size: 70001, err: "image ended after 70000 of 70001 bytes: unexpected EOF"},
		{name: "long", in: "data:70000", size: 69999, err: "image has 70000 bytes, 69999 were announced"},
		{name: "broken", in: "data:70000", after: gone, want: "data:70000", err: "network is gone"},
		{name: "broken at once", after: gone, err: "network is gone"},
		{name: "broken by a short file underneath", in: "data:5", after: io.ErrUnexpectedEOF, err: "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := layout(t, tt.in)
			r := io.Reader(bytes.NewReader(in))
			if tt.after != nil {
				r = io.MultiReader(r, iotest.ErrReader(tt.after))
			}
			if tt.size == 0 {
				tt.size = -1
			}
			got, content, err := layoutOf(NewExtents(r, tt.size))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error is %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want || !bytes.Equal(content, in) {
				t.Errorf("extents are %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}
