// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"strings"
)

// SystemVendor is the "system_vendor" object of the inventory. Missing texts are empty.
type SystemVendor struct {
	ProductName  string   `json:"product_name"` // with the SKU in parentheses, as lshw writes it
	SerialNumber string   `json:"serial_number"`
	Manufacturer string   `json:"manufacturer"`
	Firmware     Firmware `json:"firmware"`
}

// Firmware is the BIOS or UEFI.
type Firmware struct {
	Vendor    string `json:"vendor"`
	Version   string `json:"version"`
	BuildDate string `json:"build_date"` // as the firmware writes it: 06/04/2023
}

// The kernel makes one file of each SMBIOS value (drivers/firmware/dmi-id.c).
const dmiDir = "sys/devices/virtual/dmi/id/"

func readSystemVendor(r *reader) SystemVendor {
	v := SystemVendor{
		ProductName:  r.text(dmiDir + "product_name"),
		SerialNumber: r.text(dmiDir + "product_serial"),
		Manufacturer: r.text(dmiDir + "sys_vendor"),
		Firmware: Firmware{
			Vendor:    r.text(dmiDir + "bios_vendor"),
			Version:   r.text(dmiDir + "bios_version"),
			BuildDate: r.text(dmiDir + "bios_date"),
		},
	}
	if sku := r.text(dmiDir + "product_sku"); sku != "" && v.ProductName != "" {
		v.ProductName += " (" + sku + ")"
	}
	return v
}

// System says who the machine is.
type System struct {
	// UUID is the machine's UUID in lower case, as the kernel and dmidecode show it; empty if it has none.
	UUID string
	// SwappedUUID is the same with the bytes of its first three fields reversed. SMBIOS before 2.6 did not say in which
	// order they are (SMBIOS 3.7, 7.2.1), so that a BMC or a label may show this one.
	SwappedUUID string
}

func readSystem(r *reader) System {
	uuid := r.text(dmiDir + "product_uuid") // for root only
	if uuid == "" {
		return System{}
	}
	swapped, err := swapUUID(uuid)
	if err != nil {
		r.problem(fmt.Errorf("read %sproduct_uuid: %w", dmiDir, err))
		return System{}
	}
	uuid = strings.ToLower(uuid)
	if strings.Trim(uuid, "0-") == "" || strings.Trim(uuid, "f-") == "" { // not set, not known
		return System{}
	}
	return System{UUID: uuid, SwappedUUID: swapped}
}

// swapUUID reverses the bytes of the first three fields, and makes it lower case.
func swapUUID(uuid string) (string, error) {
	fields := strings.Split(strings.ToLower(uuid), "-")
	if len(uuid) != 36 || len(fields) != 5 || len(fields[0]) != 8 || len(fields[1]) != 4 || len(fields[2]) != 4 ||
		len(fields[3]) != 4 || strings.Trim(strings.Join(fields, ""), "0123456789abcdef") != "" {
		return "", fmt.Errorf("%q is no UUID", uuid)
	}
	for i, f := range fields[:3] {
		swapped := ""
		for len(f) > 0 {
			swapped, f = f[:2]+swapped, f[2:]
		}
		fields[i] = swapped
	}
	return strings.Join(fields, "-"), nil
}
