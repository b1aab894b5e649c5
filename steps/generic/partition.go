// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
)

// partitionInfo is what the conductor says of a partition image beyond other images. Source: ironic's ironic/drivers/modules/agent.py.
type partitionInfo struct {
	RootMB            number  `json:"root_mb"`
	RootGB            number  `json:"root_gb"` // where there is no root_mb
	SwapMB            number  `json:"swap_mb"`
	EphemeralMB       number  `json:"ephemeral_mb"`
	EphemeralGB       number  `json:"ephemeral_gb"` // likewise
	EphemeralFormat   *string `json:"ephemeral_format"`
	PreserveEphemeral truth   `json:"preserve_ephemeral"`
	BootMode          *string `json:"deploy_boot_mode"`
	BootOption        *string `json:"boot_option"`
}

// number is an integer that may come as a text; null and absence are 0.
type number int64

// UnmarshalJSON refuses what is no integer.
func (n *number) UnmarshalJSON(b []byte) error {
	s := strings.TrimSpace(strings.Trim(string(b), `"`))
	if s == "null" {
		return nil
	}
	v, err := strconv.ParseInt(s, 10, 63)
	if err != nil {
		return fmt.Errorf("%.40q is not a whole number", b)
	}
	*n = number(v)
	return nil
}

// truth is true or false, also as a text; null and absence are false.
type truth bool

// UnmarshalJSON refuses what may mean either.
func (v *truth) UnmarshalJSON(b []byte) error {
	switch strings.ToLower(strings.Trim(string(b), `"`)) {
	case "true", "1", "yes", "on", "t", "y":
		*v = true
	case "false", "0", "no", "off", "f", "n", "null", "", "none":
		*v = false
	default:
		return fmt.Errorf("%.40q is neither true nor false", b)
	}
	return nil
}

// parsePartitionInfo reads and checks the description of a partition image as far as no disk and no node is needed for that.
func parsePartitionInfo(h steps.Host, raw json.RawMessage) (partitionInfo, error) {
	var p partitionInfo
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, fmt.Errorf("%w: image_info: %v", steps.ErrArgs, err)
	}
	for _, boot := range []string{"uefi", "bios"} { // which of them is known later
		l := p.layout(h, boot, "gpt")
		if err := l.Check(); err != nil {
			return p, fmt.Errorf("%w: image_info: %w", steps.ErrArgs, err)
		}
	}
	return p, nil
}

// layout is the partitions that are asked for.
func (p partitionInfo) layout(h steps.Host, mode, label string) image.Layout {
	const mibPerGB = 1024
	l := image.Layout{
		UEFI: mode == "uefi", MBR: label == "msdos",
		Root: int64(p.RootMB), Swap: int64(p.SwapMB), Ephemeral: int64(p.EphemeralMB),
		PreserveEphemeral: bool(p.PreserveEphemeral), EphemeralFormat: "ext4",
	}
	if l.Root == 0 && p.RootGB < 1<<30 {
		l.Root = int64(p.RootGB) * mibPerGB
	}
	if l.Ephemeral == 0 && p.EphemeralGB < 1<<30 {
		l.Ephemeral = int64(p.EphemeralGB) * mibPerGB
	}
	if p.EphemeralFormat != nil && *p.EphemeralFormat != "" {
		l.EphemeralFormat = *p.EphemeralFormat
	}
	switch {
	case l.UEFI:
		l.ESP = int64(cmp.Or(h.ESPSize, 550))
	case !l.MBR:
		l.BIOSBoot = int64(cmp.Or(h.BIOSBootSize, 1))
	}
	return l
}

// isPartition tells whether an image is one of a file system. Whatever else its type is, it is a whole disk.
func (i imageInfo) isPartition() bool { return i.ImageType == "partition" }

// volumes are the parts of a disk of this machine.
func volumes(h steps.Host, disk string) image.Volumes {
	if !h.Local {
		return nil
	}
	return image.LocalVolumes(disk, h.Tools, loader(h))
}

// loader loads what the kernel needs to mount a kind of file system; nil where it does so itself.
func loader(h steps.Host) func(context.Context, string) error {
	if h.LoadModules == nil {
		return nil
	}
	return func(ctx context.Context, kind string) error {
		modules := []string{kind}
		if kind == "vfat" {
			modules = append(modules, "nls_cp437", "nls_ascii") // its code pages
		}
		return h.LoadModules(ctx, modules...)
	}
}

// writePartitions is writeImage for a partition image, when the disk is open.
func writePartitions(ctx context.Context, h steps.Host, j steps.Job, r *request, disk steps.Disk, chosen inspect.Disk, spec image.Spec, also string) (any, error) {
	mode, label := steps.BootMode(h.Machine, j.Node)
	layout := r.partitions.layout(h, mode, label)
	if raid.IsArray(h.Machine.FS, chosen.Name) {
		layout.ESP = min(layout.ESP, raid.MostESP)
	}
	result, err := image.WritePartitions(ctx, disk, spec, layout, volumes(h, chosen.Name))
	if err != nil {
		return nil, fmt.Errorf("write partition image %s to %s: %w", r.info.ID, chosen.Name, err)
	}
	for _, w := range result.Warnings {
		h.Say("WARNING: %s", w)
	}
	if result.Loader != "" {
		h.Say("%s: boot loader in %s", chosen.Name, result.Loader)
	}
	h.Say("%s: %d MiB written, %d MiB zeroed, %d MiB read back and right", chosen.Name,
		result.Written.Bytes>>20, result.Written.Zeroed>>20, result.Written.Checked>>20)

	// Ironic reads "root uuid" and "efi system partition uuid"; the second is null without one. Source: ironic-python-agent's
	// ironic_python_agent/partition_utils.py, work_on_disk.
	uuids := map[string]any{"root uuid": result.RootUUID, "efi system partition uuid": nil}
	paths := map[string]string{}
	for role, p := range result.Roles {
		paths[string(role)] = partitionPath(chosen.Name, p.Number)
	}
	uuids["partitions"] = paths
	text := fmt.Sprintf("image (%s) written to device %s root_uuid=%s", r.info.ID, chosen.Name, result.RootUUID)
	if result.ESPUUID != "" {
		uuids["efi system partition uuid"] = result.ESPUUID
		if is(r.partitions.BootMode, "uefi") && is(r.partitions.BootOption, "local") {
			text += " efi_system_partition_uuid=" + result.ESPUUID
		}
	}
	return steps.Deployed{Text: text + also, Disk: chosen.Name, UUIDs: uuids}, nil
}

func is(s *string, want string) bool { return s != nil && *s == want }

// partitionPath is the path of a disk's partition, as the kernel names it.
func partitionPath(disk string, number int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(number)
}
