// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/ironhand/ironhand/initramfs/media"
	"github.com/ironhand/ironhand/netconfig"
)

func TestFinalizeRescue(t *testing.T) {
	const sha512 = "$6$rounds=5000$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjlO/O817G3uBnIFNjnQJuesI68OTLiBFdcbYEdFCoEOfaS35inz1" // of the specification, shortened in the test's own way
	tests := []struct {
		name, params string
		start        error
		hash         string // that the account gets; "clear" is one of the password in the clear
		want         string
	}{
		{"hashed", `{"rescue_password": "` + sha512 + `", "hashed": true}`, nil, sha512, "SUCCEEDED "},
		{"in the clear", `{"rescue_password": "tenant's own"}`, nil, "clear", "SUCCEEDED "},
		{"none", `{}`, nil, "", " InvalidCommandParamsError: rescue_password: is missing"},
		{"hash that is none", `{"rescue_password": "tenant's own", "hashed": true}`, nil, "", " InvalidCommandParamsError: rescue_password: is not a hash"},
		{"weak hash", `{"rescue_password": "$1$salt$qJH7.N4xYta3aEG/dfqo/0", "hashed": true}`, nil, "", " InvalidCommandParamsError: rescue_password: is not a hash"},
		{"hash with a line of its own", `{"rescue_password": "$6$salt$abcdefgh\nroot::0:0::/:/bin/sh", "hashed": true}`, nil, "", " InvalidCommandParamsError: rescue_password: is not a hash"},
		{"hash with a field of its own", `{"rescue_password": "$6$salt$abcdefgh:0:0", "hashed": true}`, nil, "", " InvalidCommandParamsError: rescue_password: is not a hash"},
		{"long", `{"rescue_password": "` + strings.Repeat("x", 1025) + `"}`, nil, "", " InvalidCommandParamsError: rescue_password: is longer than"},
		{"a number", `{"rescue_password": 5}`, nil, "", " InvalidCommandParamsError: rescue_password and hashed: must be"},
		{"no server", `{"rescue_password": "tenant's own"}`, errors.New("start SSH: the ramdisk has no server"), "clear", "FAILED CommandExecutionError: rescue: start SSH: the ramdisk has no server"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got accounts
			a, do, _, console := commandAgent(t, System{
				Network:  func() (netconfig.Kernel, error) { return still{}, nil },
				StartSSH: func(_ context.Context, a accounts) (string, error) { got = a; return "host key SHA256:x", test.start },
			})
			r := do("rescue.finalize_rescue", test.params).text()
			if !strings.HasPrefix(r, test.want) || strings.Contains(r+console.String(), "tenant") && strings.Contains(r+console.String(), "own") {
				t.Errorf("finalize_rescue = %s, want %s; console\n%s", r, test.want, console.String())
			}
			if test.hash == "clear" {
				digest, err := shacrypt.Decode(got.hash)
				if err != nil || !digest.Match("tenant's own") || digest.Match("tenant's") {
					t.Errorf("hash %s: %v", got.hash, err)
				}
			} else if got.hash != test.hash {
				t.Errorf("hash = %q, want %q", got.hash, test.hash)
			}
			why, err := a.state.retired()
			if err != nil || (why != "") != strings.HasPrefix(test.want, "SUCCEEDED") {
				t.Errorf("retired: %q, %v", why, err)
			}
			if why != "" {
				wantText(t, "console", console.String(), "rescue: ssh rescue@192.0.2.7; host key SHA256:x", "rescue: Ironic may move the ports")
			}
		})
	}
}

// The tenant, who is root, finds nothing of the conductor's: whether the agent ends its service itself or is killed before.
func TestRescueForgets(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %t", killed), func(t *testing.T) {
			system := System{
				StateDir: t.TempDir(), Network: func() (netconfig.Kernel, error) { return still{}, nil },
				StartSSH: func(context.Context, accounts) (string, error) { return "host key SHA256:x", nil },
			}
			a, _ := newTestAgent(t, system)
			medium := media.Medium{Device: "/dev/sr0", Kind: "cd", Label: "config-2", Files: map[string][]byte{"parameters.txt": []byte("ipa-agent-token=secret")}}
			if err := errors.Join(a.state.keepToken("secret"), a.state.keepMedia([]media.Medium{medium}), a.state.keepAddress("192.0.2.7"),
				keepFile(filepath.Join(a.state.certificateDir(), "agent.pem"), []byte("secret"))); err != nil {
				t.Fatal(err)
			}
			if _, err := a.finalizeRescue(t.Context(), []byte(`{"rescue_password": "tenant's own"}`)); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if killed {
				a, _ = newTestAgent(t, system)
				_ = a.remember(ctx)
			} else {
				_ = a.served(ctx)
			}
			left, err := filepath.Glob(filepath.Join(system.StateDir, "*"))
			if err != nil || len(left) != 1 || filepath.Base(left[0]) != "retired" {
				t.Errorf("left are %q, %v", left, err)
			}
			if why, err := a.state.retired(); why == "" || err != nil {
				t.Errorf("retired() = %q, %v", why, err)
			}
		})
	}
}

// What Python's crypt, the C library's and ours make of a password is the same.
func TestPasswordHashAsOthers(t *testing.T) {
	hash, err := passwordHash("tenant's own", false)
	if err != nil {
		t.Fatal(err)
	}
	if !hashForm.MatchString(hash) {
		t.Errorf("our own hash %s would be refused", hash)
	}
	salt := strings.Split(hash, "$")
	args := []string{"passwd", "-6", "-salt", salt[len(salt)-2], "-stdin"}
	if strings.HasPrefix(salt[2], "rounds=") {
		args[3] = salt[2] + "$" + salt[3]
	}
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = strings.NewReader("tenant's own\n")
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil || strings.TrimSpace(string(out)) != hash {
		t.Errorf("openssl says %s, %v, we say %s", out, err, hash)
	}
}

func TestAccounts(t *testing.T) {
	passwd, shadow, group := accounts{name: "rescue", hash: "$6$s$h"}.files()
	for text, want := range map[string]string{
		passwd: "root:x:0:0:root:/root:/bin/sh\nrescue:x:0:0:rescue:/root:/bin/sh\n",
		shadow: "root:*:1::::::\nrescue:$6$s$h:1::::::\n",
		group:  "root:x:0:\ntty:x:5:\n",
	} {
		if text != want {
			t.Errorf("got\n%swant\n%s", text, want)
		}
	}
	if passwd, _, _ := (accounts{keys: []string{"k"}}).files(); strings.Contains(passwd, "rescue") {
		t.Errorf("an account that nobody asked for:\n%s", passwd)
	}
}

func TestAuthorizedKeys(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	line := string(b)
	word := strings.Fields(line)[1]
	for _, test := range []struct {
		name, parameter, file string
		want                  int
		err                   bool
	}{
		{"none", "", "", 0, false},
		{"parameter", word, "", 1, false},
		{"file with comments", "", "# mine\n\n" + line + line, 2, false},
		{"both", word, line, 2, false},
		{"not base64", "ssh-ed25519", "", 0, true},
		{"cut", word[:12], "", 0, true},
		{"of another kind than it says", "", "ssh-rsa " + word, 0, true},
		{"with options", "", `command="id" ` + line, 0, true},
		{"private key", "", "-----BEGIN OPENSSH PRIVATE KEY-----", 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			keys, err := authorizedKeys(test.parameter, test.file)
			if len(keys) != test.want || (err != nil) != test.err {
				t.Errorf("authorizedKeys() = %q, %v", keys, err)
			}
			for _, k := range keys {
				if k != "ssh-ed25519 "+word {
					t.Errorf("key %q", k)
				}
			}
		})
	}
}

// noAsker is for networks on which nothing is to be asked.
type noAsker struct{ t *testing.T }

func (n noAsker) Ask(_ context.Context, nic netconfig.NIC, m netconfig.Method) (netconfig.Lease, error) {
	n.t.Errorf("asked on %s by %s", nic.Name, m)
	return netconfig.Lease{}, errors.New("not to be asked")
}

// Who says that the network stays gets that, also of an agent that is started again, which does not read the settings any more.
func TestRescueKeepsNetwork(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{start: time.Now(), nics: map[string]time.Duration{"52:54:00:00:00:01": 0}}
		system := System{
			StateDir: dir, Asker: noAsker{t}, Network: func() (netconfig.Kernel, error) { return w, nil },
			StartSSH: func(context.Context, accounts) (string, error) { return "host key SHA256:x", nil },
		}
		a, console := newTestAgent(t, system)
		a.config.RescueNetwork = keepNetwork
		if _, err := a.finalizeRescue(t.Context(), []byte(`{"rescue_password": "tenant's own"}`)); err != nil {
			t.Fatal(err)
		}
		wantText(t, "console", console.String(), "the addresses stay these, as ironhand-rescue-network says")
		for _, last := range []func(context.Context) error{a.served, func(ctx context.Context) error {
			a, _ := newTestAgent(t, system)
			return a.remember(ctx)
		}} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			if err := last(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the end: %v", err)
			}
			cancel()
		}
	})
}

// Who keeps what the network was given ends where that would undo the end, or be in the way of what asks anew, and only there.
func TestEndOfLeases(t *testing.T) {
	for why, want := range map[string]bool{lockedDown: true, rescued: true, rescuedHere: false} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				downs, ended := 0, -1 // -1: not at all; else how often the links were set down before
				a, _ := newTestAgent(t, System{StateDir: "/nowhere", LinksDown: func() error { downs++; return nil }})
				a.endLeases = func() { ended = downs }
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := a.rest(ctx, why); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("rest() = %v", err)
				}
				if ended > 0 || (ended == 0) != want {
					t.Errorf("leases ended: %d, want %v, before the links are down", ended, want)
				}
			})
		})
	}
}
