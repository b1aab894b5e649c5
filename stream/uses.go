// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// findUses says in words what uses a block device or its partitions: mounts, swap, and devices built on top of them. root is the root
// of a file system with /sys and /proc.
func findUses(root fs.FS, major, minor uint32) ([]string, error) {
	disk, err := deviceName(root, path.Join("sys/dev/block", fmt.Sprintf("%d:%d", major, minor)))
	if err != nil {
		return nil, err
	}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	swaps, err := fs.ReadFile(root, "proc/swaps")
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(root, path.Join("sys/class/block", disk))
	if err != nil {
		return nil, err
	}
	names := []string{disk}
	for _, e := range entries { // a partition is a directory of its disk's, named like a disk
		if strings.HasPrefix(e.Name(), disk) {
			names = append(names, e.Name())
		}
	}
	var uses []string
	for _, name := range names {
		dir := path.Join("sys/class/block", name)
		number, err := fs.ReadFile(root, path.Join(dir, "dev"))
		if err != nil {
			return nil, err
		}
		device := "/dev/" + strings.ReplaceAll(name, "!", "/")
		for _, point := range mountPoints(mounts, strings.TrimSpace(string(number)), device) {
			uses = append(uses, fmt.Sprintf("%s is mounted at %s", device, point))
		}
		if isSwap(swaps, device) {
			uses = append(uses, fmt.Sprintf("%s is swapped to", device))
		}
		holders, err := fs.ReadDir(root, path.Join(dir, "holders"))
		if err != nil {
			return nil, err
		}
		for _, h := range holders {
			uses = append(uses, fmt.Sprintf("%s is part of /dev/%s", device, h.Name()))
		}
	}
	if len(uses) == 0 {
		uses = append(uses, "another program has it open")
	}
	return uses, nil
}

// deviceName reads the name of a block device from its directory in /sys.
func deviceName(root fs.FS, dir string) (string, error) {
	event, err := fs.ReadFile(root, path.Join(dir, "uevent"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(event)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok {
			return strings.ReplaceAll(name, "/", "!"), nil // as /sys writes it
		}
	}
	return "", fmt.Errorf("%s/uevent names no device", dir)
}

// mountPoints returns where a device is mounted, by its number or, where a file system has a number of its own (btrfs), by its name. See
// proc(5), /proc/pid/mountinfo.
func mountPoints(mountinfo []byte, number, device string) []string {
	var points []string
	for line := range strings.Lines(string(mountinfo)) {
		mount, filesystem, _ := strings.Cut(line, " - ")
		f, s := strings.Fields(mount), strings.Fields(filesystem)
		if len(f) < 5 || len(s) < 2 {
			continue
		}
		if f[2] == number || s[1] == device {
			points = append(points, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4]))
		}
	}
	return points
}

// isSwap looks for a device in /proc/swaps.
func isSwap(swaps []byte, device string) bool {
	for line := range strings.Lines(string(swaps)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == device {
			return true
		}
	}
	return false
}
