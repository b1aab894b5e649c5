// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	configdrive "github.com/ironhand/ironhand/image"
)

// maxDrive bounds the content of a config drive in bytes. It is sent to the agent twice in one command, and comes back
// twice with each list of commands.
const maxDrive = 4 << 20

// makeConfigDrive makes the node's config drive as it is sent: an ISO 9660 file system, gzipped, in base64. It has
// OpenStack's files, and ironhand/ca.crt for the report.
func (c *Conductor) makeConfigDrive(n *node) error {
	d := n.config.ConfigDrive
	if d == nil {
		return nil
	}
	files, err := c.driveFiles(n, d)
	if err != nil {
		return err
	}
	size := 0
	for _, b := range files {
		size += len(b)
	}
	if size > maxDrive {
		return fmt.Errorf("files of %d bytes, more than %d", size, maxDrive)
	}
	iso, err := configdrive.MakeConfigDrive(files)
	if err != nil {
		return err
	}
	n.configDrive = configdrive.EncodeConfigDrive(iso)
	n.hostName = d.HostName
	return nil
}

// driveFiles is the content of the drive: path to bytes.
func (c *Conductor) driveFiles(n *node, d *ConfigDrive) (map[string][]byte, error) {
	files := make(map[string][]byte)
	for name, local := range d.Files {
		b, err := readSmall(local)
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	meta := make(map[string]string)
	for k, v := range d.Meta {
		meta[k] = v
	}
	if d.Report {
		meta["report_url"] = c.publicURL() + "/lab/booted/" + n.config.UUID
		meta["report_secret"] = string(n.reportSecret)
		ca := d.CA
		if ca == "" && c.config.TLS.Auto {
			ca = filepath.Join(filepath.Dir(c.config.TLS.Cert), CAFile)
		}
		if ca != "" {
			b, err := readSmall(ca)
			if err != nil {
				return nil, err
			}
			files["ironhand/ca.crt"] = b
		}
	}
	b, err := json.MarshalIndent(map[string]any{
		"uuid": n.config.UUID, "name": n.config.Name, "hostname": d.HostName, "meta": meta,
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	files["openstack/latest/meta_data.json"] = b
	if d.UserData != "" {
		files["openstack/latest/user_data"] = []byte(d.UserData)
	}
	if d.NetworkData != "" {
		b, err := readSmall(d.NetworkData)
		if err != nil {
			return nil, err
		}
		if !json.Valid(b) {
			return nil, fmt.Errorf("%s is not JSON", d.NetworkData)
		}
		files["openstack/latest/network_data.json"] = b
	}
	return files, nil
}

// readSmall reads a file that must fit into a config drive.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDrive+1))
	if err == nil && len(b) > maxDrive {
		err = fmt.Errorf("%s: more than %d bytes", name, maxDrive)
	}
	return b, err
}
