// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
)

// A Command is something that the conductor can ask for.
type Command struct {
	Name  string // with its extension: standby.prepare_image
	Async bool   // the request is answered at once and the command runs on
	// Check looks at the parameters before the command begins, so that the request can be refused if they make no sense. It does nothing else. Nil checks nothing.
	Check func(params json.RawMessage) error
	// Run does it. Params is a JSON object, and parameters that the command does not know are
	// ignored: a conductor that is newer than this program still gets its work done. The result becomes JSON; a string becomes an object with the key result. The
	// context ends when the agent does, not when the request does.
	Run func(ctx context.Context, params json.RawMessage) (any, error)
}

// A Status says how far a command is.
type Status string

// The statuses that the conductor knows. A version mismatch makes it ask for the steps again.
const (
	Running         Status = "RUNNING"
	Succeeded       Status = "SUCCEEDED"
	Failed          Status = "FAILED"
	VersionMismatch Status = "CLEAN_VERSION_MISMATCH"
)

// A Result is a command that was asked for, in the form of the wire. It has no parameters, because
// these hold secrets.
type Result struct {
	ID     string          `json:"id"`           // a UUID
	Name   string          `json:"command_name"` // without the extension
	Status Status          `json:"command_status"`
	Error  *Error          `json:"command_error"`  // nil unless the command failed
	Value  json.RawMessage `json:"command_result"` // nil, which is null, until the command succeeded
	// Progress is how far a running command is, in a form of its own. Ironic has no such key and
	// ignores it.
	Progress json.RawMessage `json:"command_progress,omitempty"`

	open json.RawMessage // Value for readers without the token; nil if it is the same
}

// shown is the result as it is shown to those who have proven that they know the token, or have not.
func (r Result) shown(proven bool) Result {
	if !proven && r.open != nil {
		r.Value = r.open
	}
	return r
}

// openValue returns what is shown of a result to readers without the token, nil for all of it. Among the arguments of a step may be a config drive, and logs are large;
// conductors that have to do without a token look at a step's name and interface, and take logs from the answer to the request for them.
func openValue(value json.RawMessage) json.RawMessage {
	all, err := object(value)
	if errors.Is(err, errNoObject) || len(value) == 0 {
		return nil
	}
	changed := err != nil // it cannot be told what is in it
	for name, member := range all {
		if name == "system_logs" {
			all[name], changed = json.RawMessage(`""`), true
		}
		step, err := object(member)
		if _, given := step["args"]; !strings.HasSuffix(name, "_step") || err == nil && !given || errors.Is(err, errNoObject) {
			continue
		}
		delete(step, "args")
		if all[name], err = json.Marshal(step); err != nil {
			all[name] = json.RawMessage("null")
		}
		changed = true
	}
	if !changed {
		return nil
	}
	b, err := json.Marshal(all)
	if err != nil {
		return json.RawMessage("null")
	}
	return b
}

// The history is what ironic-python-agent never forgets. Ironic looks at the last entries only,
// so old ones can go, and large old values can go before them.
const (
	maxHistory      = 1000     // results
	maxHistoryBytes = 16 << 20 // of all values together; the last result always keeps its own
)

// Commands runs the agent's commands, one at a time, and remembers their results in the order in
// which they were asked for.
type Commands struct {
	table map[string]Command // by full name
	log   *slog.Logger
	keep  func(Result) error
	ended func()

	life context.Context // of all commands
	stop context.CancelFunc

	turn chan struct{} // holds a value while a request starts a command or runs a synchronous one

	mu      sync.Mutex
	history []*run
}

// A run is a command and what became of it.
type run struct {
	id   string
	name string
	done chan struct{} // closed when it has ended

	mu     sync.Mutex
	result Result
}

func newRun(name string) *run {
	r := &run{id: newUUID(), name: name, done: make(chan struct{})}
	r.result = Result{ID: r.id, Name: r.name, Status: Running}
	return r
}

// snapshot returns the result as it is now.
func (r *run) snapshot() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result
}

// await returns when the command has ended or ctx has.
func (r *run) await(ctx context.Context) {
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// NewCommands makes a runner for the commands of a list, which all have different names of the form
// extension.command. Keep is called with the result of every asynchronous command before anybody else sees it: before the command begins, when it is
// Running, and when it has ended. A command that cannot be kept does not begin: were the agent killed, the conductor would take it for done. Ended is called
// when everybody can see that one has ended. Nil is for nothing.
func NewCommands(list []Command, log *slog.Logger, keep func(Result) error, ended func()) (*Commands, error) {
	if keep == nil {
		keep = func(Result) error { return nil }
	}
	if ended == nil {
		ended = func() {}
	}
	c := &Commands{table: map[string]Command{}, log: log, keep: keep, ended: ended, turn: make(chan struct{}, 1)}
	for _, one := range list {
		if ext, name, ok := strings.Cut(one.Name, "."); !ok || ext == "" || name == "" || one.Run == nil {
			return nil, fmt.Errorf("command %q: not of the form extension.command, or nothing to run", one.Name)
		}
		if _, ok := c.table[one.Name]; ok {
			return nil, fmt.Errorf("command %s: there are two", one.Name)
		}
		c.table[one.Name] = one
	}
	c.life, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Resume puts the last command of an agent that was killed into the history of the one after it, before that does anything. A command that was running has failed:
// Ironic takes an empty history for the sign of a machine that was rebooted because a step wanted it, and goes on with the next step. Source: ironic
// ironic/drivers/modules/agent_base.py, _freshly_booted.
func (c *Commands) Resume(r Result) {
	if r.Status == Running {
		r.Status = Failed
		r.Error = newError("AgentRestartedError", "%s: the agent was killed while it ran, and has been started again: what it did is not whole", r.Name)
	}
	r.open = openValue(r.Value)
	kept := &run{id: r.ID, name: r.Name, done: make(chan struct{}), result: r}
	close(kept.done)
	c.add(kept)
}

// Do starts a command and returns its result: the final one of a synchronous command, or of any
// if wait is set; else the one with which an asynchronous command begins, however soon it ends. A command that failed is a result too. The error, always an *Error, is for
// requests that started nothing: an unknown command, bad parameters, a busy agent. The context is
// that of the request; when it ends, the waiting does, and the command goes on.
func (c *Commands) Do(ctx context.Context, name string, params json.RawMessage, wait bool) (Result, error) {
	ext, bare, ok := strings.Cut(name, ".")
	if !ok {
		return Result{}, newError("InvalidCommandError", "Command name must be of the form <extension>.<name>")
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return Result{}, newError("CommandExecutionError", "%s did not start: %w", bare, ctx.Err())
	}
	r, begin, err := c.start(ext, bare, params)
	<-c.turn
	if err != nil {
		return Result{}, err
	}
	if !wait {
		return begin, nil
	}
	r.await(ctx)
	return r.snapshot(), nil
}

// start runs a synchronous command and sets an asynchronous one going. It has the turn. The result is the first that there is.
func (c *Commands) start(ext, bare string, params json.RawMessage) (*run, Result, error) {
	if c.life.Err() != nil {
		return nil, Result{}, newError("CommandExecutionError", "%s did not start: the agent is going down", bare)
	}
	if last := c.last(); last != nil && last.snapshot().Status == Running {
		return nil, Result{}, newError("AgentIsBusy", "executing command %s", last.name)
	}
	command, err := findCommand(c.table, ext+"."+bare)
	if err != nil {
		return nil, Result{}, err
	}
	if command.Check != nil {
		if err := command.Check(params); err != nil {
			return nil, Result{}, asError(err)
		}
	}

	r := newRun(bare)
	if command.Async {
		begin := r.snapshot()
		if err := c.keep(begin); err != nil {
			return nil, Result{}, newError("CommandExecutionError", "%s did not start: keep it for an agent after this one: %w", bare, err)
		}
		c.add(r)
		go func() {
			c.finish(r, command, params)
			c.ended()
		}()
		return r, begin, nil
	}
	c.finish(r, command, params)
	end := r.snapshot()
	if end.Error != nil && end.Error.isInvalidContent() {
		return nil, Result{}, end.Error
	}
	c.add(r)
	return r, end, nil
}

// findCommand returns a command by its full name, or the error of which Ironic looks at code and text.
func findCommand(table map[string]Command, name string) (Command, error) {
	ext, bare, dotted := strings.Cut(name, ".")
	if !dotted {
		return Command{}, newError("InvalidCommandError", "Command name must be of the form <extension>.<name>")
	}
	if command, ok := table[name]; ok {
		return command, nil
	}
	for known := range table {
		if strings.HasPrefix(known, ext+".") {
			return Command{}, newError("InvalidCommandError", "Unknown command: %.100s", bare)
		}
	}
	return Command{}, newError("RequestedObjectNotFoundError", "Extension with id %.100s not found.", ext)
}

// bareName is the name without the extension.
func bareName(name string) string {
	_, bare, _ := strings.Cut(name, ".")
	return bare
}

// finish runs a command and stores what came of it.
func (c *Commands) finish(r *run, command Command, params json.RawMessage) {
	log := c.log.With("command", command.Name, "id", r.id)
	log.Info("command begins")
	value, err := command.run(context.WithValue(c.life, runKey{}, r), params)

	result := Result{ID: r.id, Name: r.name, Status: Succeeded}
	if err == nil {
		if text, ok := value.(string); ok {
			if command.Async {
				text = r.name + ": " + text
			}
			value = map[string]string{"result": text}
		}
		// Here and not in the answer: a value that is no JSON is the command's failure.
		if value != nil {
			result.Value, err = json.Marshal(value)
			result.open = openValue(result.Value)
		}
	}
	if err != nil {
		result.Status, result.Value, result.open, result.Error = Failed, nil, nil, asError(err)
		if result.Error.Type == "VersionMismatch" {
			result.Status = VersionMismatch
		}
		log.Error("command failed", "type", result.Error.Type, "err", err)
		if p, ok := errors.AsType[*panicError](err); ok {
			log.Error("command panicked", "stack", string(p.stack))
		}
	} else {
		log.Info("command succeeded")
	}
	if command.Async {
		// First: who sees the end may ask for the next command, and what is kept of that must not be overwritten.
		if err := c.keep(result); err != nil {
			log.Warn("end of the command not kept for an agent after this one", "err", err)
		}
	}
	r.mu.Lock()
	r.result = result
	r.mu.Unlock()
	c.trim()
	close(r.done)
}

// run runs the command itself. A panic is the command's failure and not the agent's.
func (c Command) run(ctx context.Context, params json.RawMessage) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	return c.Run(ctx, params)
}

// A panicError is a defect of ours. The stack is for the log.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

type runKey struct{}

// SetProgress shows a value, which becomes JSON, in the status of the running command that ctx belongs
// to. Each value replaces the one before. Outside of a command, and for a value that is no JSON,
// it does nothing.
func SetProgress(ctx context.Context, v any) {
	r, ok := ctx.Value(runKey{}).(*run)
	if !ok {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.result.Status == Running {
		r.result.Progress = b
	}
}

// List returns all results, the oldest first.
func (c *Commands) List() []Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Result, len(c.history))
	for i, r := range c.history {
		list[i] = r.snapshot()
	}
	return list
}

// Result returns one result, with wait as soon as the command has ended or ctx does. The error is an
// *Error.
func (c *Commands) Result(ctx context.Context, id string, wait bool) (Result, error) {
	c.mu.Lock()
	i := slices.IndexFunc(c.history, func(r *run) bool { return r.id == id })
	var r *run
	if i >= 0 {
		r = c.history[i]
	}
	c.mu.Unlock()
	if r == nil {
		return Result{}, newError("RequestedObjectNotFoundError", "Command Result with id %.100s not found.", id)
	}
	if wait {
		r.await(ctx)
	}
	return r.snapshot(), nil
}

// Stop ends the context of all commands, and lets no other begin.
func (c *Commands) Stop() { c.stop() }

// Wait returns when no command runs, or with the error of ctx.
func (c *Commands) Wait(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}: // no synchronous command runs
		<-c.turn
	case <-ctx.Done():
		return fmt.Errorf("wait for a command: %w", ctx.Err())
	}
	if last := c.last(); last != nil {
		last.await(ctx)
		if s := last.snapshot(); s.Status == Running {
			return fmt.Errorf("wait for command %s: %w", s.Name, ctx.Err())
		}
	}
	return nil
}

// last returns the last command, which is the only one that can be running, or nil.
func (c *Commands) last() *run {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.history) == 0 {
		return nil
	}
	return c.history[len(c.history)-1]
}

func (c *Commands) add(r *run) {
	c.mu.Lock()
	c.history = append(c.history, r)
	c.mu.Unlock()
	c.trim()
}

// trim keeps the history within its bounds.
func (c *Commands) trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.history) - maxHistory; n > 0 {
		c.history = slices.Delete(c.history, 0, n)
	}
	total := 0
	for i, r := range slices.Backward(c.history) {
		r.mu.Lock()
		total += len(r.result.Value)
		if total > maxHistoryBytes && i < len(c.history)-1 {
			total -= len(r.result.Value)
			r.result.Value, r.result.open = nil, nil
		}
		r.mu.Unlock()
	}
}

// newUUID returns a random UUID (version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
