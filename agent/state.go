// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ironhand/ironhand/agent/ironic"
	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/steps"
)

// state is what the agent keeps in memory-backed files, so that an agent that is started again
// within one boot goes on: the conductor gives a token out only once, wants the
// certificate and the callback URL never to change, and the medium may be gone.
// A reboot loses it, as it must.
type state struct{ dir string }

// media returns the media that were kept, none if none were.
func (s state) media() ([]media.Medium, error) {
	kept, err := media.Load(filepath.Join(s.dir, "media"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return kept, err
}

func (s state) keepMedia(m []media.Medium) error {
	return media.Save(filepath.Join(s.dir, "media"), m)
}

// reportDir is where steps keep their reports. [agent.packLogs] takes them along.
func (s state) reportDir() string { return filepath.Join(s.dir, "reports") }

func (s state) certificateDir() string { return filepath.Join(s.dir, "certificate") }

// token returns the token that the conductor gave out earlier in this boot, or "".
func (s state) token() (ironic.Secret, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "token"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return ironic.Secret(b), err
}

func (s state) keepToken(t ironic.Secret) error {
	return keepFile(filepath.Join(s.dir, "token"), []byte(t.Reveal()))
}

// address returns the address that the conductor was told to call earlier in this boot, or "".
func (s state) address() (string, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "address"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

func (s state) keepAddress(address string) error {
	return keepFile(filepath.Join(s.dir, "address"), []byte(address))
}

// nodeInfo returns what a conductor that polls said of the node earlier in this boot, or nil.
func (s state) nodeInfo() (json.RawMessage, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "node_info.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (s state) keepNodeInfo(info json.RawMessage) error {
	return keepFile(filepath.Join(s.dir, "node_info.json"), info)
}

// deployed returns what was written onto a disk earlier in this boot, or nil.
func (s state) deployed() (*steps.Deployed, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "deployed.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var d steps.Deployed
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("deployed.json: %w", err)
	}
	return &d, nil
}

// keepDeployed remembers d, or with nil that nothing is deployed (any more).
func (s state) keepDeployed(d *steps.Deployed) error {
	if d == nil {
		err := os.Remove(filepath.Join(s.dir, "deployed.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return keepFile(filepath.Join(s.dir, "deployed.json"), b)
}

// maxKeptResult is the largest result of a command that is kept whole: what it is made of comes out of the machine's memory.
const maxKeptResult = 1 << 20

// keptValue is the value of a result as it is kept. Of a large one the step's name and interface are left, by which conductors find out which
// step has ended. Source: ironic ironic/drivers/modules/agent_base.py.
func keptValue(value json.RawMessage) json.RawMessage {
	if len(value) <= maxKeptResult {
		return value
	}
	if open := openValue(value); open != nil {
		value = open
	}
	all, err := object(value)
	if err != nil {
		return nil
	}
	for name, member := range all {
		if len(member) > maxKeptResult/4 {
			all[name] = json.RawMessage("null")
		}
	}
	if value, err = json.Marshal(all); err != nil || len(value) > maxKeptResult {
		return nil
	}
	return value
}

// command returns the last asynchronous command that began in this boot, or nil.
func (s state) command() (*Result, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "command.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("command.json: %w", err)
	}
	return &r, nil
}

func (s state) keepCommand(r Result) error {
	r.Progress, r.Value = nil, keptValue(r.Value)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return keepFile(filepath.Join(s.dir, "command.json"), b)
}
