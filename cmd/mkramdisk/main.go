// SPDX-License-Identifier: Apache-2.0

// Command mkramdisk builds what a node boots: the initramfs, the ISO, the unified kernel image, configuration media, and for virtual machines the
// uncompressed kernel.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// command is one subcommand. Its run function registers flags, calls parse, and does the work.
type command struct {
	name, synopsis, about, example string
	run                            func(c *call) error
}

func commands() []command {
	return []command{initramfsCommand(), isoCommand(), ukiCommand(), mediaCommand(), vmlinuxCommand()}
}

// usageError is wrong use: exit status 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit status: 0 done, 1 failed, 2 wrong use.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return 2
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		usage(stdout)
		return 0
	}
	for _, cmd := range commands() {
		if cmd.name != args[0] {
			continue
		}
		err := cmd.run(newCall(cmd, args[1:], stdout))
		var wrong usageError
		switch {
		case errors.Is(err, flag.ErrHelp):
			return 0
		case errors.As(err, &wrong):
			fmt.Fprintf(stderr, "mkramdisk %s: %v\nTry \"mkramdisk %s --help\".\n", cmd.name, err, cmd.name)
			return 2
		case err != nil:
			fmt.Fprintf(stderr, "mkramdisk %s: %v\n", cmd.name, err)
			return 1
		}
		return 0
	}
	fmt.Fprintf(stderr, "mkramdisk: no command %q\n\n", args[0])
	usage(stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: mkramdisk COMMAND [FLAGS]\n\nBuilds what a node boots.\n\nCommands:\n")
	for _, cmd := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", cmd.name, cmd.about)
	}
	fmt.Fprint(w, "\n\"mkramdisk COMMAND --help\" shows a command's flags and an example, such as:\n")
	fmt.Fprintf(w, "\n%s\n", indent(isoCommand().example))
}

// call is one use of a command.
type call struct {
	*flag.FlagSet
	cmd    command
	args   []string
	stdout io.Writer
}

func newCall(cmd command, args []string, stdout io.Writer) *call {
	flags := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	flags.Usage = func() {}     // help is printed by parse, and only when it is asked for
	return &call{FlagSet: flags, cmd: cmd, args: args, stdout: stdout}
}

func (c *call) help() {
	fmt.Fprintf(c.stdout, "usage: mkramdisk %s %s\n\n%s.\n", c.cmd.name, c.cmd.synopsis, strings.ToUpper(c.cmd.about[:1])+c.cmd.about[1:])
	heading := "\nFlags:\n"
	c.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		if value != "" {
			value = " " + value
		}
		if f.DefValue != "" && f.DefValue != "false" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(c.stdout, "%s  --%s%s\n      %s\n", heading, f.Name, value, text)
		heading = ""
	})
	fmt.Fprintf(c.stdout, "\nExample:\n\n%s\n", indent(c.cmd.example))
}

// parse reads the flags and wants as many arguments behind them as given, and a value for each flag of required.
func (c *call) parse(arguments int, required ...string) error {
	if err := c.Parse(c.args); errors.Is(err, flag.ErrHelp) {
		c.help()
		return err
	} else if err != nil {
		return usageError{err.Error()}
	}
	if c.NArg() != arguments {
		return usageError{fmt.Sprintf("%d arguments, want %d", c.NArg(), arguments)}
	}
	for _, name := range required {
		if c.Lookup(name).Value.String() == "" {
			return usageError{"flag --" + name + " is missing"}
		}
	}
	return nil
}

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// create writes a file as a whole or not at all: what stands at path before stays until write has succeeded.
func create(path string, perm os.FileMode, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close() // the first error is told
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// size prints bytes as people read them, with the exact number.
func size(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%.1f KiB (%d bytes)", float64(n)/(1<<10), n)
	}
	return fmt.Sprintf("%.1f MiB (%d bytes)", float64(n)/(1<<20), n)
}
