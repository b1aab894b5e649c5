// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/inspect/ocp"
	"github.com/ironhand/ironhand/inspect/ocp/ocptest"
)

// The recorded machines and the health of their disks as Test and Validation output; -update writes what is expected anew.
func TestOCP(t *testing.T) {
	for _, name := range []string{"virtio", "sata-nvme", "sas", "qemu", "judged", "server"} {
		t.Run(name, func(t *testing.T) {
			m := Recorded(inspecttest.Server())
			if name != "server" {
				m = recorded(t, name)
			}
			inv, err := m.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			health, err := m.Health(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if name == "qemu" { // which has none that is about to fail
				health[0].fail("it says so")
			}
			var out bytes.Buffer
			w := ocp.NewWriter(&out, func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3600)) })
			err = w.Start(ocp.Start{Name: "test", Version: "1", CommandLine: "test", DUT: inv.DUT()})
			for _, h := range health {
				if err == nil {
					err = h.Judge(w)
				}
			}
			if err == nil {
				err = w.End(ocp.Complete, ocp.Pass)
			}
			if err != nil {
				t.Fatal(err)
			}
			ocptest.Check(t, out.Bytes())
			golden := "testdata/" + name + ".ocp.jsonl"
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := lineDiff(string(want), out.String()); diff != "" {
				t.Errorf("output differs from %s:\n%s", golden, diff)
			}
		})
	}
}
