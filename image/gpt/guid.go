// SPDX-License-Identifier: Apache-2.0

package gpt

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is a GUID in its text form, lower case: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".
type GUID string

// Types of partitions: UEFI 2.10 table 5.7, and the Discoverable Partitions Specification.
const (
	EFISystem GUID = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	LinuxData GUID = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	LinuxRAID GUID = "a19d880f-05fc-4d3b-a006-743f0f84911e"
	BIOSBoot  GUID = "21686148-6449-6e6f-744e-656564454649" // GRUB's, on a GPT disk that BIOS boots
	LinuxLVM  GUID = "e6d6d379-f507-44c2-a23c-238f2a3df928"
	LinuxSwap GUID = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
)

// unused is the type of an entry that describes no partition.
const unused GUID = "00000000-0000-0000-0000-000000000000"

// RandomGUID makes a version 4 GUID (RFC 9562 section 5.4).
func RandomGUID() GUID {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return text(b)
}

// DecodeGUID turns the 16 bytes of a GUID as EFI stores them (UEFI 2.10 appendix A: the first three fields little endian) into text.
func DecodeGUID(b [16]byte) GUID {
	return text(swap(b))
}

// Encode gives the 16 bytes of g as EFI stores them, and an error if g is no GUID.
func (g GUID) Encode() ([16]byte, error) {
	b, err := g.bytes()
	return swap(b), err
}

// bytes gives g in the order in which it is written.
func (g GUID) bytes() (b [16]byte, err error) {
	s := string(g)
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return b, fmt.Errorf("%q is not a GUID", s)
	}
	if n, err := hex.Decode(b[:], []byte(strings.ReplaceAll(s, "-", ""))); err != nil || n != len(b) {
		return b, fmt.Errorf("%q is not a GUID", s)
	}
	return b, nil
}

func text(b [16]byte) GUID {
	return GUID(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}

// swap goes from the written order to the stored one, and back.
func swap(b [16]byte) [16]byte {
	return [16]byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}
