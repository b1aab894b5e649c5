// SPDX-License-Identifier: Apache-2.0

package ipmi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's interface (include/uapi/linux/ipmi.h).
const (
	systemInterface = 0x0c // IPMI_SYSTEM_INTERFACE_ADDR_TYPE
	bmcChannel      = 0x0f // IPMI_BMC_CHANNEL
	maxMessage      = 272  // IPMI_MAX_MSG_LENGTH
	answerLimit     = 3 * time.Second

	sendCommand  = 2<<30 | unsafe.Sizeof(request{})<<16 | 'i'<<8 | 13 // IPMICTL_SEND_COMMAND
	receiveTrunc = 3<<30 | unsafe.Sizeof(received{})<<16 | 'i'<<8 | 11
)

type address struct { // struct ipmi_system_interface_addr, with room for any other
	kind    int32
	channel int16
	lun     byte
	_       [33]byte
}

type message struct { // struct ipmi_msg
	netFn, command byte
	length         uint16
	data           unsafe.Pointer
}

type request struct { // struct ipmi_req
	addr       unsafe.Pointer
	addrLength uint32
	id         int
	msg        message
}

type received struct { // struct ipmi_recv
	kind       int32
	addr       unsafe.Pointer
	addrLength uint32
	id         int
	msg        message
}

// Send asks the BMC of this machine and waits for its answer, 3 seconds at most. Without a device the error is [os.ErrNotExist].
func Send(ctx context.Context, r Request) ([]byte, error) {
	if len(r) < 2 || len(r) > maxMessage {
		return nil, errors.New("request has no command, or is too long")
	}
	fd, err := open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)

	const id = 1
	to := address{kind: systemInterface, channel: bmcChannel}
	data := append([]byte{}, r[2:]...)
	data = append(data, 0) // so that there is something to point to
	q := request{
		addr: unsafe.Pointer(&to), addrLength: 8, id: id, // struct ipmi_system_interface_addr with its padding
		msg: message{netFn: r[0], command: r[1], length: uint16(len(r) - 2), data: unsafe.Pointer(&data[0])},
	}
	if err := ioctl(fd, sendCommand, unsafe.Pointer(&q)); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	runtime.KeepAlive(&to)
	runtime.KeepAlive(data)

	for end := time.Now().Add(answerLimit); ; {
		left := time.Until(end)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if left <= 0 {
			return nil, fmt.Errorf("no answer within %v", answerLimit)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(min(left, 100*time.Millisecond).Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("wait for an answer: %w", err)
		}
		var from address
		answer := make([]byte, maxMessage)
		a := received{
			addr: unsafe.Pointer(&from), addrLength: uint32(unsafe.Sizeof(from)),
			msg: message{length: maxMessage, data: unsafe.Pointer(&answer[0])},
		}
		if err := ioctl(fd, receiveTrunc, unsafe.Pointer(&a)); errors.Is(err, unix.EAGAIN) {
			continue // somebody else's answer
		} else if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		runtime.KeepAlive(&from)
		if a.id == id && a.msg.netFn == r[0]|1 && a.msg.command == r[1] {
			return answer[:min(int(a.msg.length), len(answer))], nil
		}
	}
}

// open opens the first device there is.
func open() (int, error) {
	for _, name := range Devices() {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
	return -1, fmt.Errorf("IPMI device: %w", os.ErrNotExist)
}

func ioctl(fd int, number uintptr, value unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), number, uintptr(value))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}
