// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/ironhand/ironhand/netconfig"
)

// rescueCommands hand the machine to the tenant.
func (a *agent) rescueCommands() []Command {
	return []Command{{Name: "rescue.finalize_rescue", Run: a.finalizeRescue}}
}

// rescueUser is the tenant's account.
const rescueUser = "rescue"

// finalizeRescue lets the tenant log in by SSH with the given password, and then closes the API: the machine is the tenant's. Source: IPA
// ironic_python_agent/extensions/rescue.py.
func (a *agent) finalizeRescue(ctx context.Context, params json.RawMessage) (any, error) {
	var in struct {
		Password string `json:"rescue_password"`
		Hashed   bool   `json:"hashed"`
	}
	if err := json.Unmarshal(params, &in); err != nil {
		return nil, invalidParams("rescue_password and hashed: must be a text and a boolean") // err may hold the password
	}
	hash, err := passwordHash(in.Password, in.Hashed)
	if err != nil {
		return nil, invalidParams("rescue_password: %v", err)
	}
	key, err := a.sys.StartSSH(ctx, accounts{name: rescueUser, hash: hash})
	if err != nil {
		return nil, fmt.Errorf("rescue: %w", err)
	}
	where := "this machine"
	if k, err := a.network(); err == nil {
		if state, err := k.State(ctx); err == nil {
			where = sshAddresses(state)
		}
	}
	a.console.Stage("rescue", "ssh %s@%s; %s", rescueUser, where, key)
	if a.config.RescueNetwork == keepNetwork {
		a.console.Stage("rescue", "the addresses stay these, as ironhand-rescue-network says")
		return nil, a.retire(rescuedHere)
	}
	a.console.Stage("rescue", "Ironic may move the ports to other networks now: addresses are asked for again on all NICs, and new ones are shown here")
	return nil, a.retire(rescued)
}

// Values of ironhand-rescue-network.
const (
	followPorts = "follow"
	keepNetwork = "keep"
)

// followPorts finds the networks into which Ironic moves the machine's ports after finalize_rescue, until ctx ends. Nothing announces that, and it may
// take minutes. Source: the ramdisks of ironic-python-agent ask anew on all interfaces when the agent has ended (tinyipa's bootlocal.sh).
func (a *agent) followPorts(ctx context.Context) {
	if a.endLeases != nil {
		a.endLeases()
	}
	if a.sys.Asker == nil {
		return
	}
	k, err := a.network()
	if err != nil {
		a.sayLines("network", err.Error())
		return
	}
	netconfig.Follow(ctx, k, a.sys.Asker, func(line string) {
		a.sayLines("network", line)
		if state, err := k.State(ctx); err == nil {
			a.console.Stage("rescue", "ssh %s@%s", rescueUser, sshAddresses(state))
		}
	})
}

// forget removes what was kept for the next agent of this boot, which is the conductor's: token, media, keys; and leaves what says that there will be none.
func (s state) forget() error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "retired") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("remove what was kept of this boot: %w", err)
	}
	return nil
}

// sshAddresses lists where this machine can be reached.
func sshAddresses(s netconfig.State) string {
	var list []string
	for _, n := range s.NICs {
		for _, address := range n.Addresses {
			if ip := address.Prefix.Addr(); !n.Loopback && n.Up && ip.IsGlobalUnicast() {
				list = append(list, ip.String())
			}
		}
	}
	if len(list) == 0 {
		return "(no address)"
	}
	return strings.Join(list, " or ")
}

// hashForm is crypt(5): methods that the ramdisk's libcrypt knows and that are no longer weak.
var hashForm = regexp.MustCompile(`^\$(5|6|y|gy|7|2[aby])\$[./0-9A-Za-z$=,+-]{8,400}$`)

// passwordHash checks a hash, or makes one of a password in the clear.
func passwordHash(password string, hashed bool) (string, error) {
	switch {
	case password == "":
		return "", errors.New("is missing")
	case len(password) > 1024:
		return "", errors.New("is longer than 1024 bytes")
	case hashed && !hashForm.MatchString(password):
		return "", errors.New("is not a hash of crypt(5) by SHA-256, SHA-512, yescrypt, scrypt or bcrypt")
	case hashed:
		return password, nil
	}
	h, err := shacrypt.NewSHA512()
	if err != nil {
		return "", err
	}
	digest, err := h.Hash(password)
	if err != nil {
		return "", err
	}
	return digest.Encode(), nil
}

// accounts are those that SSH lets in: a user with a password hash, or root with keys.
type accounts struct {
	name, hash string
	keys       []string // lines of authorized_keys
}

// files are those of /etc that say so. The user is root by another name: what there is to repair needs nothing less, and there is nobody to be
// protected from it. A password never lets root in by that name.
func (a accounts) files() (passwd, shadow, group string) {
	passwd = "root:x:0:0:root:/root:/bin/sh\n"
	shadow = "root:*:1::::::\n"
	group = "root:x:0:\ntty:x:5:\n"
	if a.name != "" {
		passwd += a.name + ":x:0:0:" + a.name + ":/root:/bin/sh\n"
		shadow += a.name + ":" + a.hash + ":1::::::\n"
	}
	return passwd, shadow, group
}

// keysFile is where authorized keys may be on a configuration medium.
const keysFile = "ironhand/authorized_keys"

// authorizedKeys reads keys from the parameter, of which a kernel's command line can hold the middle word of a public key alone, and from the medium. None is built in.
func authorizedKeys(parameter, file string) ([]string, error) {
	var keys []string
	for line := range strings.Lines(parameter + "\n" + file) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		blob := fields[0]
		if len(fields) > 1 {
			blob = fields[1]
		}
		kind, err := keyKind(blob)
		if err != nil || len(fields) > 1 && fields[0] != kind {
			return nil, fmt.Errorf("key %.30q...: not a public key as in authorized_keys, without options", line)
		}
		keys = append(keys, kind+" "+blob)
	}
	return keys, nil
}

// keyKind reads the first field of a public key (RFC 4253, 6.6): ssh-ed25519 and the like.
func keyKind(blob string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(blob)
	if err != nil || len(b) < 4 {
		return "", errors.New("not base64")
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > 64 || int(n)+4 >= len(b) {
		return "", errors.New("no kind of key")
	}
	kind := string(b[4 : 4+n])
	if strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789-@.") != "" {
		return "", errors.New("no kind of key")
	}
	return kind, nil
}

// openForDebugging lets people in who have a key, beside the agent.
func (a *agent) openForDebugging(ctx context.Context) error {
	if len(a.config.SSHKeys) == 0 {
		return nil
	}
	key, err := a.sys.StartSSH(ctx, accounts{keys: a.config.SSHKeys})
	if err != nil { // nobody was promised more than a try
		a.sayLines("ssh", err.Error())
		return nil
	}
	a.console.Stage("ssh", "root may log in with %d keys; %s", len(a.config.SSHKeys), key)
	return nil
}
