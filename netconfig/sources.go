// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"errors"
	"fmt"
	"io/fs"
)

// Sources are the places that may describe the network. The first one that does counts,
// as a whole: two descriptions are not mixed, but for what the kernel command line says of
// name servers, which always counts.
type Sources struct {
	Cmdline  string // the kernel command line
	Firmware fs.FS  // the directory of /sys/firmware/ibft, read if the command line says so; nil: there is none
	Files    []File // network_data.json, strong to weak
}

// BootMAC is the MAC of the NIC that the machine was booted from, by BOOTIF; empty if it is not known.
func (s Sources) BootMAC() MAC {
	_, p := parseCmdline(s.Cmdline, nil)
	return p.bootMAC
}

// File is one network_data.json, and where it was found.
type File struct {
	From    string
	Content []byte
}

// Plan returns the plan of the source that counts, and which one that is; from is empty
// if none describes the network. What is wrong is returned as ParseNetworkData and
// ParseCmdline do, with the source in front of each line.
func (s Sources) Plan() (plan Plan, from string, err error) {
	const cmdline = "kernel command line"
	plan, err = ParseCmdline(s.Cmdline, s.Firmware)
	err = at(cmdline, err)
	if len(plan.Links) > 0 || len(plan.Everywhere) > 0 {
		return plan, cmdline, err
	}
	if len(s.Files) == 0 {
		return plan, "", err
	}
	f := s.Files[0]
	described, wrong := ParseNetworkData(f.Content)
	if len(plan.DNS) > 0 {
		described.DNS = plan.DNS
	}
	described.IgnoreDNS = plan.IgnoreDNS
	return described, f.From, errors.Join(err, at(f.From, wrong))
}

// at puts a place before each of the errors that were joined.
func at(place string, err error) error {
	var joined interface{ Unwrap() []error }
	if err == nil || !errors.As(err, &joined) {
		if err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		return nil
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, fmt.Errorf("%s: %w", place, e))
	}
	return errors.Join(errs...)
}
