// SPDX-License-Identifier: Apache-2.0

// Labconductor is a small conductor for demos, labs and sites without Ironic: it deploys images through agents that
// speak Ironic's protocol. The work is done by package conductor.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/agent/conductor"
)

const usage = `labconductor deploys images onto machines that run an agent with Ironic's API.

usage:
  labconductor run [--exit-when-done] [--timeout TIME] CONFIG.yaml
  labconductor ca --dir DIR --host HOST [--host HOST]...
  labconductor token FILE
  labconductor version

run      serves lookup, heartbeats and image files over HTTPS, and deploys the nodes of CONFIG.yaml.
         It prints a line for everything that happens. SIGHUP tells it that the machines were switched off and on:
         their agents may then come with another address, certificate and token.
ca       makes ca.crt, server.crt and server.key. Nodes need ca.crt on their configuration medium.
token    writes a new agent token to FILE (mode 0600), for token_file in CONFIG.yaml and for the node's medium.

example:
  labconductor ca --dir tls --host 192.0.2.1 --host 2001:db8::1
  labconductor token node.token
  labconductor run --exit-when-done --timeout 10m labconductor.yaml

Exit status: 0 done, 1 failed, 2 wrong use.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program: it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	var err error
	switch args[0] {
	case "run":
		err = serve(ctx, args[1:], stdout)
	case "ca":
		err = makeCertificates(args[1:], stdout)
	case "token":
		err = makeToken(args[1:], stdout)
	case "version":
		err = printVersion(args[1:], stdout)
	case "help", "-h", "-help", "--help":
		err = flag.ErrHelp
	default:
		err = wrongUse("unknown subcommand %q", args[0])
	}
	var wrong usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "labconductor: %v\n\n%s", err, usage)
		return 2
	default:
		fmt.Fprintf(stderr, "labconductor: %v\n", err)
		return 1
	}
}

// usageError is a mistake on the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func wrongUse(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// parse reads flags and checks how many arguments are left.
func parse(f *flag.FlagSet, args []string, want int, what string) error {
	f.SetOutput(io.Discard)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return wrongUse("%s: %v", f.Name(), err)
	}
	if f.NArg() != want {
		return wrongUse("%s: want %s", f.Name(), what)
	}
	return nil
}

func serve(ctx context.Context, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	exit := f.Bool("exit-when-done", false, "")
	timeout := f.Duration("timeout", 0, "")
	if err := parse(f, args, 1, "one configuration file"); err != nil {
		return err
	}
	cfg, err := conductor.LoadConfig(f.Arg(0))
	if err != nil {
		return err
	}
	if *exit {
		cfg.Exit = "done"
	}
	if *timeout > 0 {
		cfg.Timeout = conductor.Duration(*timeout)
	}
	c, err := conductor.New(cfg, conductor.Options{Event: timeline(stdout, time.Now())})
	if err != nil {
		return err
	}
	if err := c.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go restarted(ctx, c)
	return c.Run(ctx)
}

// restarted takes SIGHUP as: the machines were switched off and on.
func restarted(ctx context.Context, c *conductor.Conductor) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			for _, n := range c.Nodes() {
				c.PowerCycled(n.UUID)
			}
		}
	}
}

// timeline returns a function that prints an event as a line with the seconds since start.
func timeline(w io.Writer, start time.Time) func(conductor.Event) {
	return func(e conductor.Event) {
		node := e.Node
		if node == "" {
			node = "-"
		}
		fmt.Fprintf(w, "[%8.3f] %-8s %-8s %s\n", e.Time.Sub(start).Seconds(), node, e.Kind, e.Text)
	}
}

func makeCertificates(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("ca", flag.ContinueOnError)
	dir := f.String("dir", "", "")
	var hosts []string
	f.Func("host", "", func(s string) error {
		if !slices.Contains(hosts, s) {
			hosts = append(hosts, s)
		}
		return nil
	})
	if err := parse(f, args, 0, "no arguments but --dir and --host"); err != nil {
		return err
	}
	if *dir == "" || len(hosts) == 0 {
		return wrongUse("ca: want --dir and at least one --host")
	}
	if err := conductor.WriteCertificates(*dir, hosts); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %s, %s and %s for %s\n", *dir, conductor.CAFile, conductor.CertFile, conductor.KeyFile, strings.Join(hosts, ", "))
	return nil
}

func makeToken(args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("token", flag.ContinueOnError)
	if err := parse(f, args, 1, "one file to write"); err != nil {
		return err
	}
	if err := conductor.WriteToken(f.Arg(0)); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: new token\n", f.Arg(0))
	return nil
}

func printVersion(args []string, stdout io.Writer) error {
	if err := parse(flag.NewFlagSet("version", flag.ContinueOnError), args, 0, "no arguments"); err != nil {
		return err
	}
	version, revision := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	fmt.Fprintf(stdout, "labconductor %s%s\n", version, revision)
	return nil
}
