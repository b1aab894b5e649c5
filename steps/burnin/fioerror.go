// SPDX-License-Identifier: Apache-2.0

package burnin

import "syscall"

// fioError is the error of a job as fio reports it: a number of Linux, which other systems have for other errors. Source: Linux include/uapi/asm-generic/errno-base.h, errno.h.
type fioError int

// Error says what Linux says.
func (e fioError) Error() string { return syscall.Errno(e).Error() }

const (
	errIO           fioError = 5
	errNoAddress    fioError = 6 // ENXIO
	errNoDevice     fioError = 19
	errNoRoom       fioError = 28
	errPipe         fioError = 32
	errExchange     fioError = 52 // EBADE
	errNoData       fioError = 61
	errNoNet        fioError = 64
	errNoLink       fioError = 67
	errSequence     fioError = 84 // EILSEQ
	errNetDown      fioError = 100
	errNetAway      fioError = 101 // ENETUNREACH
	errAborted      fioError = 103
	errReset        fioError = 104
	errTimedOut     fioError = 110
	errRefused      fioError = 111
	errHostDown     fioError = 112
	errHostAway     fioError = 113 // EHOSTUNREACH
	errRemoteDevice fioError = 121 // EREMOTEIO
)

// diskFaults are the errors of a disk's commands that are its own, and that of a block which is not what was written, EILSEQ. To have no room is none: a volume that is promised more than there
// is has it. Source: Linux block/blk-core.c, blk_errors; fio 3.33, verify.c.
func diskFaults() []fioError {
	return []fioError{errIO, errNoAddress, errNoDevice, errExchange, errNoData, errNoLink, errSequence, errTimedOut, errRemoteDevice}
}

// networkFaults are the errors of a connection that was there, or should be. Source: connect(2), send(2), tcp(7).
func networkFaults() []fioError {
	return append(notThere(), errIO, errPipe, errNoNet, errNetDown, errAborted, errReset)
}

// notThere are the errors of a connection to a partner that does not listen, or is not up yet.
func notThere() []fioError {
	return []fioError{errRefused, errHostDown, errHostAway, errNetAway, errTimedOut}
}
