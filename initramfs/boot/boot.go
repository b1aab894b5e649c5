// SPDX-License-Identifier: Apache-2.0

// Package boot is process 1 of the ramdisk, and the end of it: kexec, reboot, power off.
//
// [Init] mounts the early file systems, loads the modules that the devices ask for, starts the agent as a child, hands the
// agent's output to every console and to a log, and starts the agent again when it ends. [Power] is how the agent asks process 1
// to take the machine down; outside the ramdisk there is no such process 1, and Power refuses.
//
// The package writes to no disk and configures no network beyond the loopback interface. It refuses to jump into a kernel when
// none is loaded, and to load one that the running kernel would not accept, and says why.
//
// Kernel parameters read here:
//
//	ironhand.hostname=NAME     host name while the ramdisk runs; "ironhand" without it
//	ironhand.shell=1           a shell on every console besides the agent
//	ironhand.shell=only        a shell on every console, and no agent
//	ironhand-burnin=WHAT       the menu of burn-in on every console in place of the agent
//	modprobe.blacklist=A,B     modules not to load for a device; module_blacklist= likewise
//	MODULE.PARAMETER=VALUE     parameters of loadable modules, as modprobe takes them
package boot

import (
	"fmt"
	"time"
)

const (
	// RunDir holds what must outlive a restart of the agent, but not the machine's: process 1 makes it, readable by root
	// alone, and never cleans it.
	RunDir = "/run/ironhand"

	// LogFile has every line that the agent and process 1 printed. When it reaches 4 MiB it is renamed to LogFile + ".1",
	// in place of the one before.
	LogFile = RunDir + "/log"

	// controlSocket is where process 1 takes orders; see power.go.
	controlSocket = RunDir + "/init.sock"

	// modulesDir holds one directory for each kernel release.
	modulesDir = "/lib/modules"
)

// Options say what process 1 starts.
type Options struct {
	// Agent is the argument vector of the agent. The program is process 1's own, whatever Agent[0] is.
	Agent []string

	// Menu is the argument vector of the menu of burn-in, to which "--console" and the names of the consoles are added. While it runs nobody else writes on them. Empty: there is none.
	Menu []string

	// Shell is the argument vector of the emergency shell; Shell[0] is a path. Without it: /bin/busybox sh.
	Shell []string
}

// How says in which way the machine goes down.
type How int

// The ways down. The zero How is none of them.
const (
	PowerOff How = iota + 1
	Reboot       // through the firmware
	Kexec        // into the kernel that LoadKernel has loaded
)

// String is the word for h on the console and on the control socket.
func (h How) String() string {
	switch h {
	case PowerOff:
		return "power off"
	case Reboot:
		return "reboot"
	case Kexec:
		return "kexec"
	}
	return fmt.Sprintf("How(%d)", int(h))
}

// backoff decides how long to wait before the agent is started again.
type backoff struct{ last time.Duration }

// next returns the wait after a run of the given length: 1 s at first, doubled with each short run up to 30 s, and 1 s again
// after a run of a minute or more.
func (b *backoff) next(ran time.Duration) time.Duration {
	const first, most, good = time.Second, 30 * time.Second, time.Minute
	if b.last == 0 || ran >= good {
		b.last = first
	} else {
		b.last = min(2*b.last, most)
	}
	return b.last
}
