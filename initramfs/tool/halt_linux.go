// SPDX-License-Identifier: Apache-2.0

package tool

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup gives a program that is to be started a process group of its own, which is killed with it. Its children may have been left behind by a program that was halted.
// When this process dies the program does too: whoever ends this one's group does not reach it. The thread that starts it has to stay until it has ended (prctl(2), PR_SET_PDEATHSIG).
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
}

func halt(group int) error   { return signalGroup(group, syscall.SIGSTOP) }
func resume(group int) error { return signalGroup(group, syscall.SIGCONT) }

// signalGroup tells a group something, unless it has ended by itself.
func signalGroup(group int, s syscall.Signal) error {
	if err := syscall.Kill(-group, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
