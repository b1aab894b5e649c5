// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of ironhand. As process 1 of a machine it is the ramdisk's init
// instead. It is the only package that draws on a terminal.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/ironhand/ironhand/agent"
	"github.com/ironhand/ironhand/initramfs/boot"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitOther  = 3 // done, and something is not as it was; or of burn-in, not all of it could be done
)

// A command is one subcommand.
type command struct {
	name    string
	args    string // what follows the name, for the help
	help    string // one line
	example string
	run     func(ctx context.Context, c *call) error
}

// call is one call of a subcommand: what it was given and where it prints.
type call struct {
	parts  agent.Parts
	flags  *flag.FlagSet
	args   []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	live   *liveRun // of the menu, whose screen shows what a command does; nil: it has its own
}

// errUsage marks errors of whoever typed the command.
var errUsage = errors.New("wrong use")

// errDiffers marks the end of a comparison that found something.
var errDiffers = errors.New("differs")

// errShown marks errors that have been printed where they happened.
var errShown = errors.New("shown")

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

func commands() []command {
	return []command{
		agentCommand(), inspectCommand(), writeCommand(), torrentCommand(), netCommand(),
		stepsCommand(), runStepCommand(), burninCommand(), menuCommand(), kexecCommand(), versionCommand(),
	}
}

// Main runs the program and ends it: with 0 done, 1 failed, 2 wrong use.
func Main(p agent.Parts) {
	if os.Getpid() == 1 {
		boot.Init(boot.Options{Agent: []string{"ironhand", "agent"}, Menu: []string{"ironhand", "menu"}})
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Run(ctx, p, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run runs one command line, without the program's name, and returns the exit code.
func Run(ctx context.Context, p agent.Parts, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(stdout)
		return exitDone
	}
	for _, cmd := range commands() {
		if cmd.name == args[0] {
			return runCommand(ctx, cmd, p, args[1:], stdin, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "ironhand: no command %q\n\n", args[0])
	usage(stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "ironhand: the agent on a bare-metal machine, and its parts by hand\n\nusage: ironhand COMMAND [OPTION...] [ARGUMENT...]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.help)
	}
	fmt.Fprintf(w, "\nironhand COMMAND --help tells more, with an example.\nExit status: 0 done, 1 failed, 2 wrong use, 3 a comparison found changes, or burn-in could not test all.\n")
}

func runCommand(ctx context.Context, cmd command, p agent.Parts, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &call{parts: p, flags: flag.NewFlagSet(cmd.name, flag.ContinueOnError), args: args, stdin: stdin, stdout: stdout, stderr: stderr}
	c.flags.SetOutput(io.Discard) // parse prints both help and errors where they belong
	err := cmd.run(ctx, c)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, flag.ErrHelp):
		cmd.usage(stdout, c.flags)
		return exitDone
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "ironhand %s: %s\n", cmd.name, strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
		fmt.Fprintf(stderr, "usage: ironhand %s %s\n", cmd.name, cmd.args)
		return exitUsage
	case errors.Is(err, errDiffers):
		return exitOther
	case errors.As(err, new(notTested)):
		fmt.Fprintf(stderr, "ironhand %s: %v\n", cmd.name, err)
		return exitOther
	case errors.Is(err, errShown):
		return exitFailed
	default:
		fmt.Fprintf(stderr, "ironhand %s: %v\n", cmd.name, err)
		return exitFailed
	}
}

func (cmd command) usage(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(w, "usage: ironhand %s %s\n\n%s\n", cmd.name, cmd.args, cmd.help)
	options := false
	flags.VisitAll(func(f *flag.Flag) {
		if !options {
			fmt.Fprintln(w)
			options = true
		}
		value, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  --%-22s %s\n", strings.TrimSpace(f.Name+" "+value), text)
	})
	fmt.Fprintf(w, "\nexample: %s\n", cmd.example)
}

// parse takes flags from anywhere among the arguments, and wants between least and most others.
func (c *call) parse(least, most int) ([]string, error) {
	var plain []string
	rest := c.args
	for {
		if err := c.flags.Parse(rest); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usagef("%v", err)
		}
		rest = c.flags.Args()
		if len(rest) == 0 {
			break
		}
		plain = append(plain, rest[0])
		rest = rest[1:]
	}
	if len(plain) < least {
		return nil, usagef("an argument is missing")
	}
	if most >= 0 && len(plain) > most {
		return nil, usagef("too many arguments: %q", plain[most])
	}
	return plain, nil
}

// Version is the version of the program: the module's, or the commit that it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "0.0.0-dev"
}
