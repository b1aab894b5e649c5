// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/netconfig"
)

func mediaCommand() command {
	return command{
		name:     "media",
		synopsis: "--out FILE [FLAGS]",
		about:    "make the configuration medium of one node, for a BMC to attach: floppy, CD or USB image",
		example: `mkramdisk media --type floppy --out node1.img --network-data node1.json --ca ca.pem \
    --node-uuid 0dd5a3e1-7c10-4a5f-9d3a-3b1f3c1c2b4d --token-file node1.token \
    --param ipa-api-url=https://192.0.2.1:6385`,
		run: runMedia,
	}
}

// maxInput bounds each file that goes onto a medium, in bytes. A medium has less room.
const maxInput = 8 << 20

func runMedia(c *call) error {
	kind := c.String("type", media.Floppy, "`kind` of medium: floppy (1,440 KiB), usb or iso")
	out := c.String("out", "", "`file` to write")
	networkData := c.String("network-data", "", "network configuration, a `file` network_data.json")
	ca := c.String("ca", "", "`file` of PEM certificates that the conductor's certificate is checked with")
	uuid := c.String("node-uuid", "", "the node's `UUID` in Ironic")
	tokenFile := c.String("token-file", "", "`file` that holds the agent token; a token is never given on the command line")
	dir := c.String("dir", "", "`directory` of further files, below openstack/, etc/ironic-python-agent/, etc/ironic-python-agent.d/ or ironhand/")
	var params list
	c.Var(&params, "param", "parameter of the agent as `KEY=VALUE`, by its name on the kernel command line; may be repeated")
	if err := c.parse(0, "out"); err != nil {
		return err
	}
	made, known := map[string]string{"floppy": media.Floppy, "usb": media.USB, "iso": media.CD}[*kind]
	if !known {
		return usageError{fmt.Sprintf("--type %s: want floppy, usb or iso", *kind)}
	}
	contents := media.Contents{NodeUUID: *uuid}
	for _, p := range params {
		key, value, ok := strings.Cut(p, "=")
		switch {
		case key == media.TokenKey:
			return usageError{"--param " + key + ": every process can read a command line; use --token-file"}
		case !ok:
			return usageError{fmt.Sprintf("--param %s: want KEY=VALUE", p)}
		}
		contents.Parameters = append(contents.Parameters, media.Parameter{Key: key, Value: value})
	}
	var err error
	if *tokenFile != "" {
		b, err := readInput(*tokenFile)
		if err != nil {
			return fmt.Errorf("token: %w", err)
		}
		if contents.Token = strings.TrimSpace(string(b)); contents.Token == "" {
			return fmt.Errorf("token: %s is empty", *tokenFile)
		}
	}
	if *networkData != "" {
		if contents.NetworkData, err = readInput(*networkData); err != nil {
			return fmt.Errorf("network data: %w", err)
		}
		// The node would refuse it; here somebody can still correct it.
		if _, err := netconfig.ParseNetworkData(contents.NetworkData); err != nil {
			return fmt.Errorf("network data: %s: %w", *networkData, err)
		}
	}
	if *ca != "" {
		if contents.CA, err = readInput(*ca); err != nil {
			return fmt.Errorf("CA certificates: %w", err)
		}
	}
	if *dir != "" {
		if contents.Files, err = readTree(*dir); err != nil {
			return err
		}
	}
	b, err := media.Make(made, contents)
	if err != nil {
		return err
	}
	// It may hold a token.
	if err := create(*out, 0o600, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %s\n", *out, size(int64(len(b))))
	return nil
}

func readInput(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInput+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxInput {
		return nil, fmt.Errorf("%s: more than %d bytes", path, maxInput)
	}
	return b, nil
}

// readTree reads all files below a directory, by slash-separated relative path.
func readTree(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s: not a regular file", path)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = readInput(path)
		return err
	})
	return files, err
}
