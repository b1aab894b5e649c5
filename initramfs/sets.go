// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"fmt"
	"slices"
)

// Set names kernel modules for one purpose. What they depend on need not be named.
type Set struct {
	Names []string // of modules; one that a kernel does not have is left out
	Dirs  []string // below the directory of the kernel; all modules in them
}

// SetNames are the names that NewSet knows.
func SetNames() []string { return []string{"none", "server", "virtual"} }

// NewSet returns a set by its name: "virtual" is for virtual machines of QEMU, VMware and Hyper-V, "server" is that and
// drivers for the storage and network controllers of servers, "none" is empty.
func NewSet(name string) (Set, error) {
	switch name {
	case "none":
		return Set{}, nil
	case "virtual":
		return virtual(), nil
	case "server":
		return server(), nil
	}
	return Set{}, fmt.Errorf("module set %q: want one of %q", name, SetNames())
}

func virtual() Set {
	return Set{Names: slices.Concat(
		// buses and controllers of virtual machines
		[]string{"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console", "virtio_rng", "virtio_balloon", "qemu_fw_cfg"},
		[]string{"hv_vmbus", "hv_utils", "hv_storvsc", "hv_netvsc", "hyperv_keyboard", "hid_hyperv", "pci_hyperv"},
		[]string{"vmw_pvscsi", "vmxnet3", "mptspi", "mptsas"},
		[]string{"e1000", "e1000e", "igb", "8139cp", "8139too", "pcnet32"},
		// disks
		[]string{"nvme", "ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod", "sg", "sym53c8xx", "megaraid_sas", "floppy", "loop"},
		// USB: virtual media and keyboards
		[]string{"xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci", "usb_storage", "uas", "usbhid", "hid_generic", "atkbd", "i8042"},
		// file systems, with what they ask the kernel for by name
		[]string{"ext4", "xfs", "btrfs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8", "isofs", "udf", "squashfs", "overlay", "efivarfs"},
		[]string{"crc32c_generic", "crc32c_intel", "xxhash_generic", "sha256_generic", "blake2b_generic"},
		// md, device mapper, network on top of others
		[]string{"raid0", "raid1", "raid10", "raid456", "linear", "dm_mod", "dm_raid", "dm_mirror", "dm_snapshot", "dm_thin_pool", "dm_multipath", "dm_round_robin", "dm_service_time"},
		[]string{"bonding", "bridge", "8021q", "af_packet", "ipv6"},
		// management
		[]string{"ipmi_si", "ipmi_devintf", "i6300esb", "softdog", "iTCO_wdt"},
	)}
}

func server() Set {
	s := virtual()
	s.Names = slices.Concat(s.Names,
		[]string{"mii", "libphy", "ipmi_ssif", "ipmi_watchdog", "ipmi_poweroff", "acpi_ipmi", "iscsi_ibft", "msr", "i2c_i801", "i2c_piix4", "i2c_ismt", "vmd", "nfit", "nd_pmem", "cxl_acpi", "cxl_pci", "cxl_mem"},
	)
	s.Dirs = []string{
		"kernel/drivers/ata", "kernel/drivers/scsi", "kernel/drivers/nvme", "kernel/drivers/message", "kernel/drivers/md",
		"kernel/drivers/net/ethernet", "kernel/drivers/net/mdio", "kernel/drivers/net/phy",
		"kernel/drivers/usb/host", "kernel/drivers/usb/storage",
		"kernel/drivers/watchdog", "kernel/drivers/edac",
	}
	return s
}
