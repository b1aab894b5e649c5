// SPDX-License-Identifier: Apache-2.0

package stream_test

import (
	"bytes"
	"testing"

	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/streamtest"
)

// The mark in the place of boot code leaves the rest of the first sector as it is: the partition table is there.
func TestMarkBootCode(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		d := streamtest.NewDisk(1<<20, sector)
		first := bytes.Repeat([]byte{0x5a}, sector)
		if _, err := d.WriteAt(first, 0); err != nil {
			t.Fatal(err)
		}
		for _, clear := range []bool{false, false, true} {
			if err := stream.MarkBootCode(d, clear); err != nil {
				t.Fatal(err)
			}
			half, err := stream.Unfinished(bytes.NewReader(d.Bytes))
			if err != nil || half == clear {
				t.Errorf("sectors of %d, clear %v: Unfinished() = %v, %v", sector, clear, half, err)
			}
			if !bytes.Equal(d.Bytes[440:sector], first[440:]) {
				t.Errorf("sectors of %d, clear %v: behind the boot code something has changed", sector, clear)
			}
		}
		if !bytes.Equal(d.Bytes[:440], make([]byte, 440)) {
			t.Errorf("sectors of %d: boot code is %x", sector, d.Bytes[:440])
		}
	}
}
