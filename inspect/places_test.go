// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

func TestPlaces(t *testing.T) {
	processor := func(kind, status byte, name string) string {
		b := make([]byte, 0x1a)
		b[0], b[1], b[4], b[5], b[0x18] = 4, byte(len(b)), 1, kind, status
		return string(b) + name + "\x00\x00"
	}
	module := func(size byte, slot string) string {
		b := make([]byte, 0x1b)
		b[0], b[1], b[0x0d], b[0x10] = 17, byte(len(b)), size, 1
		return string(b) + slot + "\x00\x00"
	}
	for _, test := range []struct{ name, tables, want string }{
		{"two sockets and a half", processor(3, 0x41, "CPU1") + processor(3, 0x00, "CPU2") + processor(4, 0x41, "FPU") + processor(3, 0x41, "CPU3") + module(8, "A1") + module(0, "A2"), "CPU1 CPU3; A1; 0000:3b:00=7"},
		{"an old one without status", "\x04\x06\x00\x00\x01\x03CPU1\x00\x00", "; ; 0000:3b:00=7"},
		{"cut off", processor(3, 0x41, "CPU1") + "\x04\xff", "CPU1; ; 0000:3b:00=7"},
		{"none", "", "; ; 0000:3b:00=7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := fstest.MapFS{"sys/bus/pci/slots/7/address": {Data: []byte("0000:3b:00\n")}, "sys/bus/pci/slots/8/address": {Data: []byte("\n")}}
			if test.tables != "" {
				files[smbiosFile] = &fstest.MapFile{Data: []byte(test.tables)}
			}
			p := Machine{FS: files}.Places()
			var modules []string
			for _, m := range p.Modules {
				modules = append(modules, m.Slot)
			}
			got := strings.Join(p.Sockets, " ") + "; " + strings.Join(modules, " ") + "; "
			for at, slot := range p.Slots {
				got += fmt.Sprintf("%s=%s", at, slot)
			}
			if got != test.want {
				t.Errorf("Places() = %s, want %s", got, test.want)
			}
		})
	}
}
