// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// degradedScript has an initial ramdisk of initramfs-tools start the root volume without a disk that is missing, and the group's other volumes, which the system would wait for in vain. Since lvm2 2.03.15
// (Debian 12) nothing else does: udev activates a group when all of it is there, whatever activation_mode in lvm.conf says (udev/69-dm-lvm.rules.in of lvm2; https://github.com/lvmteam/lvm2/issues/174).
//
// Scripts in local-block are run about each second until the root is there, for 30 seconds or those of rootdelay=. This one waits as long as mdadm's does for the missing disk of an array, for a volume that
// was started without one does not take it back by itself. initramfs-tools(7); scripts/local in initramfs-tools.
const degradedScript = `#!/bin/sh
# Starts the volume group of the root file system, a mirror, without the disks that are missing.
# Made when this system was deployed: by itself lvm2 starts a volume group only when all its disks are there.
case $1 in prereqs) echo; exit 0 ;; esac
limit=${ROOTDELAY:-0}
[ "$limit" -gt 30 ] || limit=30
read -r now rest </proc/uptime
[ $((${now%%%%.*} - ${starttime:-0})) -ge $((limit * 2 / 3)) ] || exit 0
[ -e %[1]s ] || lvm vgchange --sysinit --yes -aay --activationmode degraded %[2]s
exit 0
`

// degradedOrder runs all scripts in local-block. The list that an initial ramdisk has of them, and which this one replaces, has no more in it but the order; that does not matter where all are run again and again.
const degradedOrder = `for local_block_script in /scripts/local-block/*; do
	case $local_block_script in */ORDER) continue ;; esac
	"$local_block_script" "$@"
	[ -e /conf/param.conf ] && . /conf/param.conf
done
`

const (
	localBlock   = "scripts/local-block"
	volumeName   = "ironhand-root-volume"
	degradedFile = "etc/initramfs-tools/" + localBlock + "/" + volumeName
	cmdlineDir   = "etc/cmdline.d"
	dracutFile   = "etc/dracut.conf.d/" + volumeName + ".conf"
)

// tellRamdisks has the initial ramdisks of the system that is in root start its volume, and if that is a mirror, also when a disk is missing: now, by what is put behind them, and when others are made in their
// place. They are left as they are if the image has neither dracut nor, for a mirror, initramfs-tools with lvm2.
func (r Root) tellRamdisks(root *os.Root, mirror bool) error {
	if !plainWord.MatchString(r.Volume.Device() + r.Volume.String()) {
		return fmt.Errorf("the volume is called %q", r.Volume)
	}
	has := func(name string) bool { return isFile(root.FS(), name) }
	switch {
	case !has("usr/share/initramfs-tools/init") && has("usr/lib/dracut/dracut-functions.sh"):
		return r.tellDracut(root, mirror)
	case mirror && has("usr/share/initramfs-tools/init") && has("usr/share/initramfs-tools/hooks/lvm2"):
		return r.tellInitramfsTools(root)
	}
	return nil
}

// tellDracut names the volume for initial ramdisks of dracut, which activate nothing that is not named: a menu that is made anew in the image by grub-mkconfig may name it no longer. Of a mirror all of the group is named:
// dracut activates what is there without waiting for disks that are late, as activation_mode in lvm.conf is "degraded" by default, and udev in the system that is started would wait for all disks before it activates the
// rest. Files in /etc/cmdline.d count as the kernel's command line: getcmdline in modules.d/99base/dracut-lib.sh, lvm_scan.sh in modules.d/90lvm; dracut.conf(5), kernel_cmdline.
func (r Root) tellDracut(root *os.Root, mirror bool) error {
	words := "rd.lvm.lv=" + r.Volume.String()
	if mirror {
		words += " rd.lvm.vg=" + r.Volume.Group
	}
	return r.putRamdisks(root, File{Path: dracutFile, Content: []byte("# Made when this system was deployed: the volume of its root file system.\nkernel_cmdline+=\" " + words + " \"\n")}, 0o644, []archived{
		{name: cmdlineDir, mode: unixDir | 0o755},
		{name: cmdlineDir + "/" + volumeName + ".conf", mode: unixFile | 0o644, content: []byte(words + "\n")},
	})
}

// tellInitramfsTools has the system start when a disk of its volume, which is a mirror, is missing.
func (r Root) tellInitramfsTools(root *os.Root) error {
	script := fmt.Appendf(nil, degradedScript, r.Volume.Device(), r.Volume.Group)
	return r.putRamdisks(root, File{Path: degradedFile, Content: script}, 0o755, []archived{
		{name: path.Dir(localBlock), mode: unixDir | 0o755},
		{name: localBlock, mode: unixDir | 0o755},
		{name: localBlock + "/ORDER", mode: unixFile | 0o644, content: []byte(degradedOrder)},
		{name: localBlock + "/" + volumeName, mode: unixFile | 0o755, content: script},
	})
}

// putRamdisks puts a file into root for initial ramdisks to come, and others behind those that are there.
func (r Root) putRamdisks(root *os.Root, later File, mode fs.FileMode, now []archived) error {
	later.Mode, later.Owner, later.Group = &mode, -1, -1
	if err := later.Put(root); err != nil {
		return err
	}
	var initrds []string
	for _, pattern := range []string{"boot/initrd-*", "boot/initrd.img-*", "boot/initramfs-*.img"} { // of SUSE, Debian, Red Hat
		found, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		initrds = append(initrds, found...)
	}
	if len(initrds) > grubEntries {
		return fmt.Errorf("there are %d initial ramdisks", len(initrds))
	}
	more := archive(now)
	for _, name := range initrds {
		if !isFile(root.FS(), name) {
			continue
		}
		if err := putBehind(root, name, more); err != nil {
			return err
		}
	}
	return nil
}

// putBehind puts an archive behind an initial ramdisk, if it is not there already: the kernel unpacks all that follow each other, with zeros between them, and what comes later takes the place of what came before (Documentation/driver-api/early-userspace/buffer-format.rst).
func putBehind(root *os.Root, name string, archive []byte) (err error) {
	f, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	first := make([]byte, len(zstdMagic))
	if _, err := f.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	packed := string(first) == zstdMagic
	if packed {
		archive = zstdFrame(archive)
	}
	if last := make([]byte, len(archive)); size >= int64(len(archive)) {
		if _, err := f.ReadAt(last, size-int64(len(archive))); err != nil {
			return err
		}
		if bytes.Equal(last, archive) {
			return nil
		}
	}
	// What is not packed begins at a multiple of 4. Without zeros before it, lz4's would be read on.
	zeros := 512 - size%512
	if zeros < 4 {
		zeros += 512
	}
	if packed { // so that lsinitramfs, which has zstd test the file, still reads it
		zeros = 0
	}
	if _, err := f.WriteAt(append(make([]byte, zeros), archive...), size); err != nil {
		return err
	}
	return f.Sync()
}

const zstdMagic = "\x28\xb5\x2f\xfd"

// zstdFrame is b as it is, less than 128 KiB, in a frame of zstd: RFC 8878 section 3.1.1. The header says that there is one segment, and its size in 4 bytes; the only block is raw, and the last.
func zstdFrame(b []byte) []byte {
	frame := append([]byte(zstdMagic), 2<<6|1<<5)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(b)))
	block := uint32(len(b))<<3 | 1
	return append(append(frame, byte(block), byte(block>>8), byte(block>>16)), b...)
}

// Types of files in an archive, as in stat(2).
const (
	unixDir  = 0o040000
	unixFile = 0o100000
)

// archived is a file of root's in an archive.
type archived struct {
	name    string
	mode    uint32
	content []byte
}

// archive is one in the format newc of cpio: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
func archive(files []archived) []byte {
	var b bytes.Buffer
	add := func(inode int, f archived) {
		// inode, mode, uid, gid, links, time, size, device of the file, device that it is, length of the name, checksum
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", inode, f.mode, 0, 0, 1, 0, len(f.content), 0, 0, 0, 0, len(f.name)+1, 0, f.name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(f.content)
		b.Write(make([]byte, -b.Len()&3))
	}
	for i, f := range files {
		add(i+1, f)
	}
	add(0, archived{name: "TRAILER!!!"})
	b.Write(make([]byte, -b.Len()&511))
	return b.Bytes()
}
