//go:build linux

package boot_test

import ("testing"; "github.com/ironhand/ironhand/initramfs/vmtest")

func TestVMProf(t *testing.T) {
	vm := vmtest.Start(t, with(t, vmtest.Machine{Disks: []vmtest.Disk{{Size:1<<20}}, NICs: []vmtest.NIC{{}}}, "prof,poweroff"))
	vm.Wait(t, bootTime)
	t.Log(vm.Console())
}
