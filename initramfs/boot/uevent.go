// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"strings"
)

// uevent is the kernel's message that a device came, changed or went.
type uevent struct {
	action, path, subsystem, modalias string
}

// maxUevent bounds a message: the kernel's 2048 bytes of variables (UEVENT_BUFFER_SIZE) and the head with the path.
const maxUevent = 8 << 10

// parseUevent reads a message of the kernel: "add@/devices/...", then KEY=VALUE, each ended by a zero byte
// (lib/kobject_uevent.c).
func parseUevent(b []byte) (uevent, error) {
	head, rest, ok := strings.Cut(string(b), "\x00")
	action, path, at := strings.Cut(head, "@")
	if !ok || !at || action == "" || !strings.HasPrefix(path, "/") {
		return uevent{}, fmt.Errorf("uevent %.80q is not of the kernel's form", head)
	}
	e := uevent{action: action, path: path}
	for word := range strings.SplitSeq(rest, "\x00") {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "SUBSYSTEM":
			e.subsystem = value
		case "MODALIAS":
			e.modalias = value
		}
	}
	return e, nil
}
