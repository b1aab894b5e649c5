// SPDX-License-Identifier: Apache-2.0

// Ironhand is the one program of the ramdisk: as process 1 it sets the machine up, as its child it is
// the agent, and by hand it runs the parts. A vendor's program is this one with a longer list.
package main

import (
	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/agent/cli"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/generic"
)

func main() {
	cli.Main(agent.Parts{
		Managers: []steps.Manager{generic.Manager{}},
	})
}
