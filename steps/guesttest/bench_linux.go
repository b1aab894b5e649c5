// SPDX-License-Identifier: Apache-2.0

// Package guesttest is what the tests of steps have in common that run in a virtual machine with disks: a host that is the machine itself, other programs as judges, and a loss of
// power after any number of operations.
package guesttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// Bench is the machine that a test runs in.
type Bench struct {
	T    *testing.T
	Host steps.Host // its disks and programs can be killed
	Node steps.Node
	Said []string // by steps, with the time

	ops, limit int // see KillAfter
}

// New makes a bench for a node that boots by UEFI, with kernel modules loaded. If the test fails, it prints what was said.
func New(t *testing.T, modules ...string) *Bench {
	t.Helper()
	b := &Bench{T: t, Node: steps.Node{UUID: "n1"}, limit: -1}
	b.Host = steps.Host{
		Machine: inspect.Local(), Local: true, Tools: killableTools{b}, Log: slog.New(slog.DiscardHandler), LoadModules: boot.LoadModules,
		Open: func(path string) (steps.Disk, error) {
			d, err := stream.OpenDevice(path)
			if err != nil {
				return nil, err
			}
			return killable{d, b}, nil
		},
		Say: func(format string, args ...any) {
			b.Said = append(b.Said, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
		},
		Progress: func(any) {},
	}
	b.Mode("uefi")
	if err := boot.LoadModules(t.Context(), modules...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("said:\n%s", strings.Join(b.Said, "\n"))
		}
	})
	return b
}

// Mode has the node boot by "uefi" or "bios". It has no other properties then.
func (b *Bench) Mode(mode string) {
	b.Node.Properties = map[string]json.RawMessage{"capabilities": json.RawMessage(fmt.Sprintf("%q", "boot_mode:"+mode))}
}

// Run runs another program, which must succeed.
func (b *Bench) Run(name string, args ...string) string {
	b.T.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.T.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Table is the kind of a disk's partition table and START SIZE TYPE of each partition, in sectors, by the word of sfdisk. A GPT must be in order for sgdisk.
func (b *Bench) Table(disk string) string {
	b.T.Helper()
	var table struct {
		PartitionTable struct {
			Label      string
			Partitions []struct {
				Start, Size int64
				Type        string
			}
		}
	}
	if err := json.Unmarshal([]byte(b.Run("sfdisk", "--json", disk)), &table); err != nil {
		b.T.Fatal(err)
	}
	if table.PartitionTable.Label == "gpt" {
		if out := b.Run("sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
			b.T.Errorf("sgdisk -v %s:\n%s", disk, out)
		}
	}
	var parts []string
	for _, p := range table.PartitionTable.Partitions {
		parts = append(parts, fmt.Sprintf("%d %d %s", p.Start, p.Size, p.Type))
	}
	return table.PartitionTable.Label + " " + strings.Join(parts, ", ")
}

// ErrKilled is the end of a step at some point, as if the machine had lost its power: nothing after it happens.
var ErrKilled = errors.New("killed")

// KillAfter has the machine die after so many operations; -1 is never.
func (b *Bench) KillAfter(n int) { b.ops, b.limit = 0, n }

// Operations is how many there were since KillAfter.
func (b *Bench) Operations() int { return b.ops }

// Live counts an operation.
func (b *Bench) Live() error {
	if b.limit < 0 { // steps may do several things at once then
		return nil
	}
	if b.ops++; b.ops > b.limit {
		return ErrKilled
	}
	return nil
}

// Reread has the kernel read the partition tables of disks again.
func (b *Bench) Reread(disks ...string) {
	b.T.Helper()
	for _, name := range disks {
		d, err := stream.OpenDevice(name)
		if err != nil {
			b.T.Fatal(err)
		}
		if err := errors.Join(d.RereadPartitions(b.T.Context()), d.Close()); err != nil {
			b.T.Fatal(err)
		}
	}
}

// Restart is what a reset does to logical volumes: mappings and the links to them go, and the kernel reads the partition tables of some disks.
func (b *Bench) Restart(disks ...string) {
	b.T.Helper()
	b.Run("dmsetup", "remove_all", "--force")
	for _, pattern := range []string{"/dev/mapper/*-*", "/dev/vg"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			b.T.Fatal(err)
		}
		for _, n := range names {
			if err := os.RemoveAll(n); err != nil {
				b.T.Fatal(err)
			}
		}
	}
	b.Reread(disks...)
}

// A disk whose operations are counted; after the last one that is allowed, none happens any more.
type killable struct {
	steps.Disk
	b *Bench
}

func (k killable) WriteAt(p []byte, at int64) (int, error) {
	if err := k.b.Live(); err != nil {
		return 0, err
	}
	return k.Disk.WriteAt(p, at)
}

func (k killable) Zero(ctx context.Context, at, n int64) error {
	if err := k.b.Live(); err != nil {
		return err
	}
	return k.Disk.Zero(ctx, at, n)
}

func (k killable) RereadPartitions(ctx context.Context) error {
	if err := k.b.Live(); err != nil {
		return err
	}
	return k.Disk.RereadPartitions(ctx)
}

// killableTools run programs as long as the machine lives. Those that only ask are no operation.
type killableTools struct{ b *Bench }

func (k killableTools) Run(ctx context.Context, t tool.Tool, args ...string) ([]byte, error) {
	if len(args) > 0 && slices.Contains([]string{"vgs", "pvs", "lvs"}, args[0]) {
		return tool.Exec{}.Run(ctx, t, args...)
	}
	if err := k.b.Live(); err != nil {
		return nil, err
	}
	return tool.Exec{}.Run(ctx, t, args...)
}
