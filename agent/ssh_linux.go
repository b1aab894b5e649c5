// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/initramfs/tool"
)

// sshDir holds the host key of this boot and the number of the server's process.
const sshDir = boot.RunDir + "/ssh"

// startSSH starts the SSH server of the ramdisk for some accounts, in place of one that runs for others, and returns the fingerprint of its host key, which is made
// at the first start in a boot. The server goes on when the agent ends. It changes /etc, so it refuses to work elsewhere than in the ramdisk.
func startSSH(ctx context.Context, a accounts) (key string, err error) {
	if _, err := os.Stat(boot.RunDir); err != nil {
		return "", fmt.Errorf("start SSH: this is not the ramdisk: %w", err)
	}
	// What people mount: the kernel has no modprobe to ask for it. A smaller ramdisk has not all of them.
	_ = boot.LoadModules(ctx, "ext4", "xfs", "btrfs", "vfat", "nls_cp437", "nls_ascii", "isofs", "dm_mod")
	key, err = sshServer{root: "/", dir: sshDir, program: tool.Dropbear.Path(), port: "22"}.serve(ctx, a)
	if err != nil {
		return "", fmt.Errorf("start SSH: %w", err)
	}
	return key, nil
}

// sshServer is where the SSH server has what.
type sshServer struct{ root, dir, program, port string }

func (s sshServer) keyFile() string { return filepath.Join(s.dir, "host_key") }
func (s sshServer) pidFile() string { return filepath.Join(s.dir, "pid") }

// serve lets the accounts in, and nobody else. A server that does so already is left alone, with its sessions.
func (s sshServer) serve(ctx context.Context, a accounts) (key string, err error) {
	if _, err := os.Stat(s.program); err != nil {
		return "", fmt.Errorf("the ramdisk has no server: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return "", err
	}
	key, err = s.hostKey(ctx)
	if err != nil {
		return "", fmt.Errorf("make host key: %w", err)
	}
	same, err := s.serves(a)
	if same || err != nil {
		return key, err
	}
	if err := s.end(ctx, a.name != ""); err != nil { // who debugged is not to watch the tenant
		return "", err
	}
	for _, f := range s.accountFiles(a) {
		if err := os.MkdirAll(filepath.Dir(f.name), f.dirMode); err != nil {
			return "", err
		}
		if err := os.WriteFile(f.name, []byte(f.content), f.mode); err != nil {
			return "", err
		}
	}
	return key, s.start(ctx, a.hash == "")
}

// hostKey returns the fingerprint of the host key.
func (s sshServer) hostKey(ctx context.Context) (string, error) {
	args := []string{"-y", "-f", s.keyFile()}
	if _, err := os.Stat(s.keyFile()); errors.Is(err, fs.ErrNotExist) {
		args = []string{"-t", "ed25519", "-f", s.keyFile()}
	}
	out, err := tool.Exec{}.Run(ctx, tool.Dropbearkey, args...)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if print, found := strings.CutPrefix(line, "Fingerprint: "); found {
			return "host key " + strings.TrimSpace(print), nil
		}
	}
	return "", nil
}

// accountFile is a file that says who may log in.
type accountFile struct {
	name          string
	mode, dirMode fs.FileMode
	content       string
}

func (s sshServer) accountFiles(a accounts) []accountFile {
	passwd, shadow, group := a.files()
	keys := strings.Join(a.keys, "\n")
	if keys != "" {
		keys += "\n"
	}
	return []accountFile{
		{filepath.Join(s.root, "etc/passwd"), 0o644, 0o755, passwd}, {filepath.Join(s.root, "etc/group"), 0o644, 0o755, group},
		{filepath.Join(s.root, "etc/shadow"), 0o600, 0o755, shadow}, {filepath.Join(s.root, "root/.ssh/authorized_keys"), 0o600, 0o700, keys},
	}
}

// serves tells whether a server runs for these accounts.
func (s sshServer) serves(a accounts) (bool, error) {
	if s.running() == 0 {
		return false, nil
	}
	for _, f := range s.accountFiles(a) {
		b, err := os.ReadFile(f.name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && string(b) != f.content {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// running returns the number of the server's process, 0 if there is none.
func (s sshServer) running() int {
	b, err := os.ReadFile(s.pidFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 2 || !s.is(pid) {
		return 0
	}
	return pid
}

// is tells whether a process runs the server's program: its number may be another's by now.
func (s sshServer) is(pid int) bool {
	exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)) // as the kernel has it open
	if err != nil {
		return false
	}
	program, err := os.Stat(s.program)
	return err == nil && os.SameFile(exe, program)
}

const (
	sshEnd   = 5 * time.Second // for a server to end, and again when it is killed
	sshStart = 5 * time.Second // for the port to become free
	sshPoll  = 20 * time.Millisecond
)

// end ends the server, with or without the sessions that it has begun, and returns when its port is free.
func (s sshServer) end(ctx context.Context, sessions bool) error {
	pid := s.running()
	if pid == 0 {
		return nil
	}
	var begun []int
	if sessions {
		var err error
		if begun, err = descendants(pid); err != nil {
			return fmt.Errorf("find the sessions of the SSH server: %w", err)
		}
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = syscall.Kill(pid, signal) // it may have ended
		for start := time.Now(); s.is(pid) && time.Since(start) < sshEnd; {
			if err := sleep(ctx, sshPoll); err != nil {
				return err
			}
		}
	}
	if s.is(pid) {
		return fmt.Errorf("end the SSH server: process %d does not end", pid)
	}
	for _, one := range begun {
		_ = syscall.Kill(one, syscall.SIGKILL)
	}
	if err := os.Remove(s.pidFile()); err != nil && !errors.Is(err, fs.ErrNotExist) { // killed, it has left the file
		return err
	}
	return nil
}

// descendants are the processes that a process has begun, and those that these have.
func descendants(pid int) ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// Source: proc_pid_stat(5): number (name) state parent; the name may have blanks and brackets.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 2 {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, parentErr := strconv.Atoi(fields[1])
		if err == nil && parentErr == nil {
			children[parent] = append(children[parent], child)
		}
	}
	all := slices.Clone(children[pid])
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// start starts the server, and returns when it listens and has said which process it is.
func (s sshServer) start(ctx context.Context, withoutPasswords bool) error {
	arguments := []string{"-E", "-r", s.keyFile(), "-P", s.pidFile(), "-p", s.port, "-j", "-k"} // without forwarding: nobody shall go through the machine
	if withoutPasswords {
		arguments = append(arguments, "-s")
	}
	for start := time.Now(); ; {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), s.program, arguments...)
		cmd.Env = []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin"}
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		err := cmd.Run() // it goes to the background when it listens
		if err == nil {
			break
		}
		if time.Since(start) > sshStart {
			return err
		}
		if err := sleep(ctx, 10*sshPoll); err != nil {
			return err
		}
	}
	for start := time.Now(); s.running() == 0; {
		if time.Since(start) > sshStart {
			return errors.New("the SSH server has ended at once")
		}
		if err := sleep(ctx, sshPoll); err != nil {
			return err
		}
	}
	return nil
}
