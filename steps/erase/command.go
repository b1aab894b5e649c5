// SPDX-License-Identifier: Apache-2.0

package erase

// What other packages send to drives goes through the same commands.

// ATASMART is the command SMART with a feature, which says what is wanted of it (ACS-4, 7.46), and the lowest byte of the LBA. The drive's answer goes to in, of 512 bytes or nil.
func ATASMART(d Drive, feature, lba byte, in []byte) error {
	c := ataCommand{command: 0xb0, feature: uint16(feature), lba: 0xc24f00 | uint64(lba), in: in, timeout: shortTimeout} // C24Fh is the command's own signature
	if in != nil {
		c.count = 1
	}
	_, err := ata{d}.do(c)
	return err
}

// ATALog reads a page of 512 bytes of a log with 48-bit addresses, READ LOG EXT (ACS-4, 7.24).
func ATALog(d Drive, log byte, page uint16) ([]byte, error) {
	b := make([]byte, 512)
	_, err := ata{d}.do(ataCommand{command: 0x2f, count: 1, lba: uint64(log) | uint64(page&0xff)<<8 | uint64(page>>8)<<32, in: b, extended: true, timeout: shortTimeout})
	return b, err
}

// SCSI sends a command. An answer other than good is an error.
func SCSI(d Drive, cdb, in []byte) error { return scsi{d}.do(cdb, in) }

// SCSIProgress asks a drive by REQUEST SENSE how much is done of what it does in the background; 0 if it does not say.
func SCSIProgress(d Drive) (float64, error) {
	b := make([]byte, 252)
	err := scsi{d}.do([]byte{scsiRequestSense, 0, 0, 0, byte(len(b)), 0}, b)
	return parseSense(b).progress, err
}
