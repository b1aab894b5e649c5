// SPDX-License-Identifier: Apache-2.0

package image

// SwapHeader makes the first 4096 bytes of a swap area of size bytes, with a UUID of its own. The label has up to 16 bytes.
func SwapHeader(size int64, label string) ([]byte, error) { return swapHeader(size, label) }
