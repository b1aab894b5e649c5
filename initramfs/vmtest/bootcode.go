// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

// BootCode is a boot sector that prints "BOOT CODE RUNS" on the first serial port, and stops. It stands where a BIOS starts a disk.
func BootCode() []byte {
	code := []byte{
		0xfc,             // cld
		0xbe, 0x13, 0x7c, // mov si, text
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x06, // jz stop
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xee,       // out dx, al
		0xeb, 0xf5, // jmp next
		0xfa, 0xf4, 0xeb, 0xfc, // stop: cli; hlt; jmp stop
	}
	return append(code, "\r\nBOOT CODE RUNS\r\n\x00"...)
}
