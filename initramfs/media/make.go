// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"

	"github.com/ironhand/ironhand/image/volume"
)

// Keys of parameters that Contents has fields for.
const (
	TokenKey    = "ipa-agent-token"
	NodeUUIDKey = "ironhand-node-uuid"
)

// Contents is what a configuration medium says to one node.
type Contents struct {
	Parameters  []Parameter       // the agent's parameters, in the order of the file
	NodeUUID    string            // the node's UUID in Ironic; "" to find it by MAC address
	Token       string            // the pregenerated agent token, a secret; "" for none
	NetworkData []byte            // network_data.json; nil for DHCP
	CA          []byte            // PEM certificates that the conductor's is checked with; nil for those in the ramdisk
	Files       map[string][]byte // further files by path, only such as the agent reads
}

// Parameter is one word of parameters.txt.
type Parameter struct{ Key, Value string }

// Make returns the image of a medium: Floppy, a FAT12 floppy of 1,440 KiB; USB, a USB disk with one
// FAT16 file system and no partitions; CD, an ISO 9660 volume. All have Ironic's label for parameters, and not
// that of a config drive: a medium that is still attached when the deployed system starts must not be taken for its. What does not fit or would not be read on the node is an
// error. The same contents give the same bytes.
func Make(kind string, c Contents) ([]byte, error) {
	files, err := c.files()
	if err != nil {
		return nil, fmt.Errorf("make configuration medium: %w", err)
	}
	b, err := makeVolume(kind, files)
	if err != nil {
		return nil, fmt.Errorf("make configuration medium: %w", err)
	}
	// Read it as the node will: its limits and rules are not written twice.
	v, err := volume.Open(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("make configuration medium: read it back: %w", err)
	}
	got, err := readFiles(v)
	if err != nil {
		return nil, fmt.Errorf("make configuration medium: read it back: %w", err)
	}
	if !maps.EqualFunc(got, files, bytes.Equal) {
		return nil, errors.New("make configuration medium: what is read back is not what was written")
	}
	return b, nil
}

func makeVolume(kind string, files map[string][]byte) ([]byte, error) {
	serial := crc32.NewIEEE()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(serial, "%s %d ", name, len(files[name]))
		serial.Write(files[name])
	}
	switch kind {
	case Floppy:
		return volume.FAT{Size: volume.FloppySize, Label: LabelFloppy, Serial: serial.Sum32(), Files: files}.Bytes()
	case USB:
		return volume.FAT{Size: 8 << 20, Label: LabelFloppy, Serial: serial.Sum32(), Files: files}.Bytes()
	case CD:
		return volume.ISO{Label: LabelFloppy, Files: volume.BytesFiles(files)}.Bytes()
	}
	return nil, fmt.Errorf("type %q: want %s, %s or %s", kind, Floppy, USB, CD)
}

// files checks the contents and gives them their paths.
func (c Contents) files() (map[string][]byte, error) {
	parameters, err := c.parameters()
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	add := func(name string, b []byte) error {
		if _, ok := files[name]; ok {
			return fmt.Errorf("file %q is there twice", name)
		}
		if !known(name, false) {
			return fmt.Errorf("file %q is not one that the agent reads", name)
		}
		files[name] = b
		return nil
	}
	if len(parameters) > 0 {
		if err := add(ParametersFile, parameters); err != nil {
			return nil, err
		}
	}
	if c.NetworkData != nil {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(c.NetworkData, &object); err != nil {
			return nil, fmt.Errorf("network data: %w", err)
		}
		if err := add(NetworkDataFile, c.NetworkData); err != nil {
			return nil, err
		}
	}
	if c.CA != nil {
		if err := checkCA(c.CA); err != nil {
			return nil, fmt.Errorf("CA certificates: %w", err)
		}
		if err := add(CAFile, c.CA); err != nil {
			return nil, err
		}
		if err := add(CAConfigFile, []byte("[DEFAULT]\ncafile = /"+CAFile+"\n")); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Files)) {
		if err := add(name, c.Files[name]); err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, errors.New("there is nothing to put on it")
	}
	return files, nil
}

// parameters makes parameters.txt, one word on a line as Ironic writes it. The node's UUID and the token come last.
func (c Contents) parameters() ([]byte, error) {
	all := slices.Clone(c.Parameters)
	if c.NodeUUID != "" {
		if !isUUID(c.NodeUUID) {
			return nil, fmt.Errorf("node UUID %q: want the form 01234567-89ab-cdef-0123-456789abcdef", c.NodeUUID)
		}
		all = append(all, Parameter{NodeUUIDKey, c.NodeUUID})
	}
	if c.Token != "" {
		all = append(all, Parameter{TokenKey, c.Token})
	}
	var b bytes.Buffer
	seen := map[string]bool{}
	for _, p := range all {
		if err := checkKey(p.Key); err != nil {
			return nil, fmt.Errorf("parameter %q: %w", p.Key, err)
		}
		if err := checkValue(p.Value); err != nil {
			return nil, fmt.Errorf("value of parameter %s: %w", p.Key, err)
		}
		if seen[p.Key] {
			return nil, fmt.Errorf("parameter %s is given twice", p.Key)
		}
		seen[p.Key] = true
		b.WriteString(p.Key + "=" + p.Value + "\n")
	}
	if b.Len() == 0 {
		return nil, nil
	}
	if _, err := ParseParameters(b.Bytes()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(strings.ToLower(s)) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') {
			return false
		} else if !dash && strings.IndexByte("0123456789abcdef", c) < 0 {
			return false
		}
	}
	return true
}

// checkCA wants certificates and nothing else: a private key must not travel on a medium.
func checkCA(b []byte) error {
	n := 0
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("a PEM block is %q, only certificates are allowed", block.Type)
		}
		n++
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d: %w", n, err)
		}
	}
	if n == 0 {
		return errors.New("no PEM certificate")
	}
	return nil
}
