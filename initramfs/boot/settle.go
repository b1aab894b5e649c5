// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"io/fs"
	"path"
)

// pendingUSB returns the USB storage devices in sys, which is /sys, that the kernel knows but has not yet looked for disks on. It waits a
// second before it does (usb_storage.delay_use), in which no uevent comes. Such a device has a SCSI host, but no target.
func pendingUSB(sys fs.FS) ([]string, error) {
	interfaces, err := fs.Glob(sys, "bus/usb/drivers/usb-storage/*:*")
	if err != nil {
		return nil, err
	}
	var pending []string
	for _, name := range interfaces {
		targets, err := fs.Glob(sys, name+"/host*/target*")
		if err != nil {
			return nil, err
		}
		if len(targets) == 0 {
			pending = append(pending, path.Base(name))
		}
	}
	return pending, nil
}

// hasUSB reports whether a USB host controller is there. Behind it each level of hubs takes some tenths of a second, without any
// uevent, until it shows what it holds.
func hasUSB(sys fs.FS) bool {
	hosts, err := fs.Glob(sys, "bus/usb/devices/usb*")
	return err == nil && len(hosts) > 0
}
