// SPDX-License-Identifier: Apache-2.0

//go:build linux

package burnin

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/netconfig/netnstest"
	"github.com/ironhand/ironhand/steps"
)

// Two machines send to each other with the real program, one way and then the other.
func TestRootNetwork(t *testing.T) {
	if !netnstest.Enter(t) {
		return
	}
	if _, err := os.Stat("/usr/bin/fio"); err != nil {
		if strings.Contains(os.Getenv("REQUIRE"), "root") {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: fio is not installed")
	}
	partner := netnstest.NewPeer(t)
	partner.Cable(t, "eth0", "", "far0")
	partner.IP(t, "address add 192.0.2.2/24 dev far0")
	netnstest.IP(t, "link set lo up")
	netnstest.IP(t, "link set eth0 up")
	netnstest.IP(t, "address add 192.0.2.1/24 dev eth0")
	h := steps.Host{Machine: inspect.Machine{FS: fstest.MapFS{"sys/class/net/lo/operstate": {}}}, Tools: tool.Exec{}, Log: slog.New(slog.DiscardHandler), Say: t.Logf}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run := func(role, other string) (any, error) {
		return Network(ctx, h, steps.Job{Node: node(map[string]any{
			"agent_burnin_fio_network_runtime": "2", "agent_burnin_fio_network_config": map[string]any{"role": role, "partner": other},
		}, "")})
	}
	var here, there any
	var errHere, errThere error
	var all sync.WaitGroup
	all.Go(func() { partner.Do(func() { there, errThere = run("reader", "192.0.2.1") }) })
	all.Go(func() { here, errHere = run("writer", "192.0.2.2") })
	all.Wait()
	if errHere != nil || errThere != nil {
		t.Fatalf("the writer: %v, the reader: %v", errHere, errThere)
	}
	for partner, result := range map[string]any{"192.0.2.2": here, "192.0.2.1": there} {
		if got := lines(result.(Report).Parts); got != "PASS|network to "+partner+"|\n" {
			t.Errorf("parts:\n%s", got)
		}
	}
}
