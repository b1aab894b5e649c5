// SPDX-License-Identifier: Apache-2.0

package stream

import "unsafe"

// alignment is what the memory of a direct write is aligned to, in bytes: a page, which is at least any disk's sector that Linux
// can handle.
const alignment = 4096

// alignedBuffer returns n zero bytes that begin on a page. Go does not move memory once allocated.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+alignment)
	skip := int(-address(b) & (alignment - 1))
	return b[skip : skip+n : skip+n]
}

func isAligned(b []byte) bool { return address(b)%alignment == 0 }

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
