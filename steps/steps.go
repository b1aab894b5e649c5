// SPDX-License-Identifier: Apache-2.0

// Package steps is the contract for work on the machine: what a step is, what
// it may use, and who offers it. It does nothing by itself; the work is in its
// subpackages, and the conductor's side of it is in package agent.
package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/ironhand/ironhand/initramfs/tool"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/stream"
)

// ErrArgs means that a step was called with arguments that cannot be. Nothing was touched.
var ErrArgs = errors.New("invalid arguments")

// ErrErase means that not every disk was erased; the text names those that were not.
var ErrErase = errors.New("not erased")

// ErrProtected means that a disk has a file system of the kinds that are not erased unasked. Nothing was touched.
var ErrProtected = errors.New("protected disk")

// ErrRAID is in every error of software RAID.
var ErrRAID = errors.New("software RAID")

// ErrVolumes is in every error of volume groups.
var ErrVolumes = errors.New("logical volumes")

// ErrBurnIn means that a part did not stand its test; the text names each with what was seen.
var ErrBurnIn = errors.New("burn-in found broken parts")

// ErrPartition means that the partition that is meant is not there, or not of use.
var ErrPartition = errors.New("no such partition")

// A Phase is the part of a node's life in which the conductor asks for steps.
// The text is the one in Ironic's command and key names.
type Phase string

// The phases that Ironic has.
const (
	Clean   Phase = "clean"
	Deploy  Phase = "deploy"
	Service Phase = "service"
)

// A Step is one piece of work that the conductor, or a person, can ask for by name.
type Step struct {
	Name      string        // as on the wire: "write_image"
	Interface string        // Ironic's interface: "deploy", "raid", "management", ...
	Priority  map[Phase]int // the phases that offer it; 0 is never automatic
	Deploys   bool          // what was deployed before is gone when it begins
	Reboot    bool          // the machine must be rebooted after it
	Abortable bool          // the conductor may give up while it runs (clean and service)
	Asks      bool          // it calls [Host.Confirm] with its plan before it destroys anything
	Args      []Arg         // all that it takes; others are refused
	// Check looks at the arguments alone, for those who want to know early whether Run would take them. Nil checks nothing.
	Check func(h Host, args json.RawMessage) error
	// Run does the work. The result becomes JSON, and a [Deployed] is also remembered by the agent.
	Run func(ctx context.Context, h Host, j Job) (any, error)
}

// An Arg is one argument of a step.
type Arg struct {
	Name        string
	Description string
	Required    bool
	Unlisted    bool // not announced: Ironic's own step of the same name gives it
}

// CheckArgs returns an error if an argument is unknown or a required one is missing.
func (s Step) CheckArgs(args map[string]json.RawMessage) error {
	for _, name := range slices.Sorted(maps.Keys(args)) {
		if !slices.ContainsFunc(s.Args, func(a Arg) bool { return a.Name == name }) {
			return fmt.Errorf("unknown argument %.100q", name)
		}
	}
	for _, a := range s.Args {
		if _, given := args[a.Name]; a.Required && !given {
			return fmt.Errorf("argument %s is missing", a.Name)
		}
	}
	return nil
}

// A Job is one request to run a step.
type Job struct {
	Node     Node
	Ports    []Port
	Args     json.RawMessage // the step's arguments, a JSON object or empty
	Deployed *Deployed       // what an earlier step wrote since the machine was started; nil if nothing
}

// Node is what steps read of Ironic's record of the machine. Secrets in it are
// masked by the conductor as "******".
type Node struct {
	UUID               string                     `json:"uuid"`
	Properties         map[string]json.RawMessage `json:"properties"`
	InstanceInfo       map[string]json.RawMessage `json:"instance_info"`
	DriverInternalInfo map[string]json.RawMessage `json:"driver_internal_info"`
	TargetRAIDConfig   json.RawMessage            `json:"target_raid_config"`
	RAIDConfig         json.RawMessage            `json:"raid_config"` // as it is on the machine
	// Record is all of the record but long values, as a config drive; numbers are json.Number.
	Record map[string]any `json:"-"`
}

// A Port is Ironic's record of one network interface of the machine.
type Port struct {
	UUID    string         `json:"uuid"`
	Address string         `json:"address"` // MAC
	Record  map[string]any `json:"-"`       // all of it, as of a Node
}

// A Disk is an open disk: what an image can be written to and read back from.
type Disk interface {
	stream.Target
	io.ReaderAt
	// RereadPartitions makes the kernel look at the partition table again.
	RereadPartitions(ctx context.Context) error
}

// Host is the running machine as a step may use it.
type Host struct {
	Machine   inspect.Machine
	Tools     tool.Runner                     // programs of the ramdisk
	Open      func(path string) (Disk, error) // opens a disk for this step alone; in use is an error
	Transport http.RoundTripper               // for images; trusts what the agent was told to trust
	Log       *slog.Logger
	// Say prints one line for the person at the console.
	Say func(format string, args ...any)
	// Progress shows a value, which becomes JSON, in the running command's status.
	Progress func(v any)
	// Local says that Machine is the one on which the program runs, so that a step may go past the fields here to its hardware. Where it is false, everything is a fake.
	Local bool
	// Reports is a directory for reports for people, from which the conductor gets them with the logs; "" for none. A step has one below it by its own name, in the place of an older one.
	Reports string
	Version string // of this program, for reports
	// Confirm shows somebody what will be destroyed and asks. An error ends the step with nothing touched. Nil: nobody is asked.
	Confirm func(ctx context.Context, plan string) error
	// Media are the devices from which this machine's settings were read since it was started: "/dev/sdb", "/dev/sdc1".
	Media []string
	// EraseSpecial says that file systems of clusters are erased like any other.
	EraseSpecial bool
	// LoadKernel loads the kernel of the operating system on the disk for kexec,
	// and says which boot entry it took. Nothing is started yet.
	LoadKernel func(ctx context.Context, disk string) (string, error)
	// LoadModules loads kernel modules by name, where the kernel does not load them by itself.
	LoadModules func(ctx context.Context, names ...string) error
	// Arrays finds the software RAID of the machine, also such that does not run. Nil: it cannot be looked at, and no disk is chosen for a node that has some.
	Arrays   func(ctx context.Context) ([]Array, error)
	Download Download
	// ESPSize and BIOSBootSize are those of the partitions that a disk gets for a partition image, in MiB; 0 is for 550 and 1, as ironic-python-agent has them.
	ESPSize, BIOSBootSize int
	ReadBack              stream.ReadBack
	// A disk that fits may appear late: it is looked for so often, so long apart.
	DiskAttempts int
	DiskDelay    time.Duration
	// Share takes over what a step shares with other machines from now on, in place of what was shared before; nil only ends that. A nil function: nothing is shared.
	Share func(Sharer)
}

// Sharer is an image that other machines fetch from this one.
type Sharer interface {
	// Share returns when the time is over, or ratio times the image was sent, or ctx ends; 0 is no such limit.
	Share(ctx context.Context, limit time.Duration, ratio float64)
	Close() error
}

// Download is how images are fetched, as the node's settings say.
type Download struct {
	Stall  time.Duration // a connection that brings no byte for so long is broken
	Budget time.Duration // so long without any progress, over all connections, is the end
	Limit  time.Duration // the whole of it may take so long; 0 is no limit
	// RefuseMD5 says that an image whose only digest is MD5 is not written.
	RefuseMD5 bool
	// Formats are those that an image may have whose format the conductor does not know, by Ironic's names; nil for all.
	Formats []string
	// PublicKeys are those that images are signed with. If there are any, an image without a valid signature by one of them is not written.
	PublicKeys []stream.PublicKey
	// BasicAuth returns user and password for image servers, unless the conductor sends them with the image; nil without.
	BasicAuth func() (user, password string)
	Torrent   Torrent
}

// Torrent is how images are fetched by BitTorrent, and shared.
type Torrent struct {
	Port     int            // for other peers; 0 for any
	Peers    []netip.Prefix // networks that they may be in; none for all
	Up, Down int64          // bytes per second at the most; 0 for no limit
}

// Deployed is the result of a step that put an operating system on a disk.
type Deployed struct {
	Text string `json:"text"` // one line for people
	Disk string `json:"disk"` // "/dev/sda"
	// Volume is the logical volume that the root file system is on, GROUP/NAME; "" if it is a partition of the disk.
	Volume string         `json:"volume,omitempty"`
	UUIDs  map[string]any `json:"uuids"` // as standby.get_partition_uuids answers
}

// Support says how well a manager knows the machine. Of two managers that offer
// the same step, the one with the higher support is asked first.
// Numbers as in ironic-python-agent's ironic_python_agent/hardware.py.
type Support int

// Levels of support; vendors may go higher.
const (
	None            Support = 0
	Generic         Support = 1
	Mainline        Support = 2
	ServiceProvider Support = 3
)

// A Manager offers the steps for one kind of hardware. Managers are plain values
// in the list that a program's main gives to the command line.
type Manager interface {
	Class() string   // key in lists of steps: "GenericHardwareManager"
	Name() string    // key in lists of versions: "generic_hardware_manager"
	Version() string // changes when its steps change
	Support(ctx context.Context, h Host) (Support, error)
	Steps() []Step
}
