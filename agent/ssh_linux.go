// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

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
	server := tool.Dropbear.Path()
	if _, err := os.Stat(server); err != nil {
		return "", fmt.Errorf("start SSH: the ramdisk has no server: %w", err)
	}

	// 1. Who may log in.
	passwd, shadow, group := a.files()
	keys := strings.Join(a.keys, "\n")
	if keys != "" {
		keys += "\n"
	}
	if err := errors.Join(
		os.MkdirAll("/root/.ssh", 0o700), os.MkdirAll("/etc", 0o755), os.MkdirAll(sshDir, 0o700),
		os.WriteFile("/etc/passwd", []byte(passwd), 0o644), os.WriteFile("/etc/group", []byte(group), 0o644),
		os.WriteFile("/etc/shadow", []byte(shadow), 0o600), os.WriteFile("/root/.ssh/authorized_keys", []byte(keys), 0o600),
	); err != nil {
		return "", fmt.Errorf("start SSH: %w", err)
	}

	// 2. The host key.
	keyFile := filepath.Join(sshDir, "host_key")
	args := []string{"-y", "-f", keyFile}
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		args = []string{"-t", "ed25519", "-f", keyFile}
	}
	out, err := tool.Exec{}.Run(ctx, tool.Dropbearkey, args...)
	if err != nil {
		return "", fmt.Errorf("start SSH: make host key: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if print, found := strings.CutPrefix(line, "Fingerprint: "); found {
			key = "host key " + strings.TrimSpace(print)
		}
	}

	// 3. What people mount: the kernel has no modprobe to ask for it. A smaller ramdisk has not all of them.
	_ = boot.LoadModules(ctx, "ext4", "xfs", "btrfs", "vfat", "nls_cp437", "nls_ascii", "isofs", "dm_mod")

	// 4. The server. Without a password hash it asks for none.
	pidFile := filepath.Join(sshDir, "pid")
	if b, err := os.ReadFile(pidFile); err == nil {
		var pid int
		if _, err := fmt.Sscan(string(b), &pid); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
		}
	}
	arguments := []string{"-E", "-r", keyFile, "-P", pidFile, "-p", "22", "-j", "-k"} // without forwarding: nobody shall go through the machine
	if a.hash == "" {
		arguments = append(arguments, "-s")
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), server, arguments...)
	cmd.Env = []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil { // it goes to the background when it listens
		return "", fmt.Errorf("start SSH: %w", err)
	}
	return key, nil
}
