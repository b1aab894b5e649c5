// SPDX-License-Identifier: Apache-2.0

// Package media finds and reads configuration media on a node, and makes them for one.
//
// A configuration medium is a floppy, a CD or a small USB disk that a BMC or a person attached, with the label and the
// files that Ironic gives it. What it says decides whom the agent obeys, so where it may come from is narrow: never from
// an internal disk, which a former user may have written. It is read once, wholly into memory, within limits for
// number, size and depth of files and for time, and only below the paths that the agent knows. Devices are only read.
package media

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Kinds of media, in the order in which Find returns them.
const (
	Floppy = "floppy"
	USB    = "usb"
	CD     = "cd"
)

// Labels of configuration media, which are compared without regard to case: Ironic's for its floppy or USB image with
// parameters and for its CD with and without network data (Ironic: ironic/drivers/modules/image_utils.py).
const (
	LabelFloppy = "ir-vfd-dev"
	LabelConfig = "config-2"
	LabelBoot   = "vmedia_boot_iso"
)

// ParametersFile has the agent's parameters, under the names that they have on the kernel command line.
const ParametersFile = "parameters.txt"

// NetworkDataFile has the network configuration (Ironic: ironic/api/controllers/v1/network-data-schema.json).
const NetworkDataFile = "openstack/latest/network_data.json"

// CAFile has the certificates that the conductor's is checked with, and CAConfigFile tells ironic-python-agent so.
const (
	CAFile       = "etc/ironic-python-agent/ironic.crt"
	CAConfigFile = "etc/ironic-python-agent.d/ironic-tls.conf"
)

// Limits for one medium.
const (
	maxFiles   = 64
	maxFile    = 1 << 20  // bytes
	maxTotal   = 4 << 20  // bytes of all files
	maxDepth   = 8        // elements of a path
	maxEntries = 4096     // names looked at
	maxReading = 32 << 20 // bytes read from the device, whatever it says about itself
)

// Medium is one configuration medium, read.
type Medium struct {
	Device    string            `json:"device"`              // such as "/dev/fd0"
	Kind      string            `json:"kind"`                // Floppy, USB or CD
	Label     string            `json:"label"`               // as it is stored
	Publisher string            `json:"publisher,omitempty"` // of a CD: whose it is, if it says so
	Files     map[string][]byte `json:"files"`               // by slash-separated path, without a slash in front
}

// Seen is what Find thought of one device.
type Seen struct {
	Device string
	Reason string // why it is not a configuration medium, or what it is
	Taken  bool
	Err    error // it may be one but could not be read; part of Reason
}

// String returns a line for the console: "/dev/sr0: label IRONHAND: not a configuration medium".
func (s Seen) String() string { return s.Device + ": " + s.Reason }

// known says whether the agent reads a file of this path; of a directory, whether it may hold one.
func known(name string, dir bool) bool {
	if name == ParametersFile {
		return !dir
	}
	for _, top := range []string{"openstack", "etc/ironic-python-agent", "etc/ironic-python-agent.d", "ironhand"} {
		if strings.HasPrefix(name, top+"/") || dir && (name == top || strings.HasPrefix(top, name+"/")) {
			return true
		}
	}
	return false
}

// errLimit is the cause of all refusals of a medium that has too much on it.
var errLimit = errors.New("more than a configuration medium may have")

// readFiles reads the files that the agent knows.
func readFiles(v fs.FS) (map[string][]byte, error) {
	files := map[string][]byte{}
	entries, total := 0, int64(0)
	var walk func(dir, prefix string, depth int) error
	walk = func(dir, prefix string, depth int) error {
		list, err := fs.ReadDir(v, dir)
		if err != nil {
			return fmt.Errorf("read directory %q: %w", "/"+prefix, err)
		}
		for _, e := range list {
			if entries++; entries > maxEntries {
				return fmt.Errorf("%w: %d names", errLimit, maxEntries)
			}
			stored, name := path.Join(dir, e.Name()), prefix+e.Name()
			// People and FAT are careless about case; all names that the agent knows are lower case.
			if lower := strings.ToLower(name); !known(name, e.IsDir()) {
				name = lower
			}
			if !known(name, e.IsDir()) {
				continue
			}
			if depth == maxDepth {
				return fmt.Errorf("%w: %d levels of directories", errLimit, maxDepth)
			}
			if e.IsDir() {
				if err := walk(stored, name+"/", depth+1); err != nil {
					return err
				}
				continue
			}
			info, err := e.Info()
			if err != nil {
				return fmt.Errorf("file %q: %w", name, err)
			}
			if info.Size() > maxFile {
				return fmt.Errorf("%w: file %q has %d bytes of %d", errLimit, name, info.Size(), maxFile)
			}
			if total += info.Size(); total > maxTotal || len(files) == maxFiles {
				return fmt.Errorf("%w: %d files, %d bytes", errLimit, maxFiles, maxTotal)
			}
			if _, ok := files[name]; ok {
				return fmt.Errorf("file %q is there twice", name)
			}
			b, err := fs.ReadFile(v, stored)
			if err != nil {
				return fmt.Errorf("read file %q: %w", name, err)
			}
			files[name] = b
		}
		return nil
	}
	return files, walk(".", "", 0)
}

// Save keeps media in a directory, which is made if need be, for an agent that is started again when they may be gone.
// Only root can read the file: it holds secrets.
func Save(dir string, media []Medium) error {
	b, err := json.Marshal(media)
	if err != nil {
		return fmt.Errorf("save media: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save media: %w", err)
	}
	path := filepath.Join(dir, savedName)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("save media: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save media: %w", err)
	}
	return nil
}

// savedName is the file that Save writes.
const savedName = "media.json"

// Load returns the media that Save kept in a directory. If there are none the error wraps fs.ErrNotExist.
func Load(dir string) ([]Medium, error) {
	b, err := os.ReadFile(filepath.Join(dir, savedName))
	if err != nil {
		return nil, fmt.Errorf("load media: %w", err)
	}
	var media []Medium
	if err := json.Unmarshal(b, &media); err != nil {
		return nil, fmt.Errorf("load media from %s: %w", dir, err)
	}
	return media, nil
}

// order sorts media: floppies, then USB disks, then CDs, each by name.
func order(media []Medium) {
	rank := map[string]int{Floppy: 0, USB: 1, CD: 2}
	slices.SortStableFunc(media, func(a, b Medium) int {
		if d := rank[a.Kind] - rank[b.Kind]; d != 0 {
			return d
		}
		return compareDevices(a.Device, b.Device)
	})
}

// compareDevices orders names as the kernel gives them: sdb before sdaa.
func compareDevices(a, b string) int {
	if d := len(a) - len(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}
