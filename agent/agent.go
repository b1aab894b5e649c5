// SPDX-License-Identifier: Apache-2.0

// Package agent is the life of the agent on a node: settings, network, lookup, heartbeats, and the
// commands of the conductor. [Run] tells it from top to bottom.
//
// It is the only package that knows Ironic's API. It touches disks only through steps and the
// commands that the conductor, with the node's token, asks for.
package agent

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/lldp"
	"github.com/ironhand/ironhand/netconfig"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
)

// Parts are what can be added to the agent from outside, as plain lists.
type Parts struct {
	Managers   []steps.Manager
	Collectors []inspect.Collector // a vendor's own; those of Ironic are always there
}

// Options are what [Run] needs.
type Options struct {
	Parts   Parts
	Version string            // of the program, as the conductor sees it
	Flags   map[string]string // settings from the command line, by the names of kernel parameters; the strongest
	Out     io.Writer         // the stages, for people
	Log     io.Writer         // everything else
	System  System            // [ThisMachine], but for tests
}

// A System is the machine that the agent works on. Tests put fakes into it.
type System struct {
	Root      fs.FS  // "/"
	Cmdline   string // of the kernel
	StateDir  string // lost with a reboot, and only then
	Machine   inspect.Machine
	Local     bool // Machine is the one on which the program runs
	FindMedia func(ctx context.Context, log func(string)) ([]media.Medium, []media.Seen, error)
	Network   func() (netconfig.Kernel, error)
	Asker     netconfig.Asker // nil: a network that nobody describes is left as it is
	OpenDisk  func(path string) (steps.Disk, error)
	// ReadDisk opens a disk for reading, whoever uses it. Nil if there are none to look at.
	ReadDisk     func(path string) (io.ReadCloser, error)
	SetClock     func(time.Time) error
	SetRTC       func(time.Time) error // the clock on the board
	LoadKernel   func(ctx context.Context, disk string) (string, error)
	KernelLoaded func() bool
	UnloadKernel func() error // called only if one is loaded
	Power        func(ctx context.Context, how boot.How) error
	ArmWatchdog  func(time.Duration) (name string, err error)
	Sync         func() error
	LinksDown    func() error // all network interfaces
	KernelLog    func() ([]byte, error)
	// StartSSH lets some accounts log in, and no others, and returns the host key's fingerprint in words.
	StartSSH    func(ctx context.Context, a accounts) (key string, err error)
	InstallUEFI func(ctx context.Context, h steps.Host, d steps.Deployed) (string, error)
	InstallBIOS func(ctx context.Context, h steps.Host, d steps.Deployed, root string) (string, error) // root is the UUID of a file system
	Tools       tool.Runner
	LoadModules func(ctx context.Context, names ...string) error
}

// MediaRead are the devices from which the agent has read this machine's settings since it was started.
func (s System) MediaRead() ([]string, error) {
	kept, err := state{s.StateDir}.media()
	if err != nil {
		return nil, fmt.Errorf("read what was kept of the media: %w", err)
	}
	return mediaDevices(kept), nil
}

// ThisMachine is the System that the program runs on.
func ThisMachine() (System, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return System{}, err
	}
	return System{
		Root:      os.DirFS("/"),
		Cmdline:   string(cmdline),
		StateDir:  boot.RunDir + "/agent",
		Machine:   inspect.Local(),
		Local:     true,
		FindMedia: media.Find,
		Network:   sync.OnceValues(NewKernel), // it remembers what was heard
		Asker:     netconfig.NewAsker(),
		OpenDisk: func(path string) (steps.Disk, error) {
			d, err := stream.OpenDevice(path)
			if err != nil {
				return nil, err // not a nil *Device in an interface
			}
			return d, nil
		},
		ReadDisk:     func(path string) (io.ReadCloser, error) { return os.Open(path) },
		SetClock:     setClock,
		SetRTC:       setRTC,
		LoadKernel:   LoadKernel,
		KernelLoaded: boot.KernelLoaded,
		UnloadKernel: boot.UnloadKernel,
		Power:        boot.Power,
		ArmWatchdog: func(d time.Duration) (string, error) {
			w, err := boot.ArmWatchdog(d)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%s, %v", w.Name, w.Time), nil
		},
		Sync:      boot.Sync,
		LinksDown: boot.LinksDown,
		KernelLog: kernelLog,
		StartSSH:  startSSH,
		Tools:     tool.Exec{},

		LoadModules: boot.LoadModules,
		InstallUEFI: installUEFI,
		InstallBIOS: installBIOS,
	}, nil
}

const levelDebug = slog.LevelDebug

// agent is what the stages of [Run] hand on to each other.
type agent struct {
	sys        System
	version    string
	flags      map[string]string
	managers   []steps.Manager
	collectors []inspect.Collector
	console    *boot.Timeline
	log        *slog.Logger
	level      *slog.LevelVar
	state      state

	// In the order in which the stages of Run find them out.
	media      []media.Medium
	config     Config
	trust      trust
	reached    atomic.Bool // the conductor has answered, by the network as it is
	ntpFound   []string    // addresses that were given with those of the NICs
	ntp        *ntpAnswer  // nil without NTP server, or without its answer
	inventory  inspect.Inventory
	macs       []net.HardwareAddr
	neighbours map[string][]lldp.TLV // by interface; nil if nobody has listened
	inspected  *ironic.Inspected     // nil without an inspection that succeeded
	set        steps.Set
	host       steps.Host
	client     *ironic.Client
	settings   ironic.Settings
	uuid       string
	token      ironic.Secret

	retirement retirement
	endLeases  func() // ends the asking for what the network was given, and returns when it has; nil if nothing was given

	mu       sync.Mutex
	node     steps.Node      // as the conductor sent it last
	deployed *steps.Deployed // what was written in this boot
	sharing  steps.Sharer    // nil for nothing
}

func newAgent(o Options) *agent {
	level := new(slog.LevelVar)
	a := &agent{
		sys:        o.System,
		version:    o.Version,
		flags:      o.Flags,
		managers:   o.Parts.Managers,
		collectors: o.Parts.Collectors,
		console:    boot.NewTimeline(o.Out),
		log:        slog.New(slog.NewTextHandler(o.Log, &slog.HandlerOptions{Level: level, ReplaceAttr: dropTime})),
		level:      level,
		state:      state{o.System.StateDir},
	}
	a.host = steps.Host{
		Machine:    a.sys.Machine,
		Local:      a.sys.Local,
		Open:       a.sys.OpenDisk,
		Log:        a.log,
		Say:        func(format string, args ...any) { a.console.Stage("step", format, args...) },
		LoadKernel: a.loadKernel,
		Tools:      a.sys.Tools,
		Reports:    a.state.reportDir(),
		Version:    a.version,

		LoadModules: a.sys.LoadModules,
	}
	a.host.Arrays = func(ctx context.Context) ([]steps.Array, error) { return raid.Arrays(ctx, a.host) }
	return a
}

// dropTime leaves the time out of log records: process 1 puts the time since power-on in front, and the
// clock may be set in between.
func dropTime(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) == 0 && attr.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return attr
}

func (a *agent) network() (netconfig.Kernel, error) { return a.sys.Network() }

func (a *agent) currentNode() steps.Node {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node
}

func (a *agent) currentDeployed() *steps.Deployed {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deployed
}

func (a *agent) setDeployed(d *steps.Deployed) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deployed = d
	return a.state.keepDeployed(d)
}
