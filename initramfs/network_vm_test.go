// SPDX-License-Identifier: Apache-2.0

package initramfs_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/vmtest"
)

// A machine without an IPv4 address is deployed by a conductor and an image server that have IPv6 addresses, and both ends call each other so.
func TestVMOnlyIPv6(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.only6 = true
	l.start()
	m := l.machine()
	vm := vmtest.Start(t, m)
	vm.Expect(t, `network: eth0 `+labMAC+` `+regexp.QuoteMeta(l.network.Guest6.String()+" via "+l.network.Host6.Addr().String()), bootTime)
	vm.Expect(t, regexp.QuoteMeta("api: https://["+l.network.Guest6.Addr().String()+"]:9999"), bootTime)
	vm.Expect(t, `heartbeat: first one accepted`, bootTime)
	vm.Expect(t, `IMAGE RUNS`, deployTime+bootTime)
	if err := l.result(time.Minute); err != nil {
		t.Errorf("conductor: %v\n%s", err, l.timeline())
	}
	if strings.Contains(vm.Console(), l.network.Guest4.Addr().String()) || strings.Contains(vm.Console(), l.network.Host4.Addr().String()) {
		t.Error("there is an IPv4 address on the console")
	}
	checkDisk(t, vm.Disks[1], 512)
	wantNoSecrets(t, l, vm)
}
