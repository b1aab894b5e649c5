// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/steps"
)

// quiet is a log that nobody reads.
var quiet = slog.New(slog.DiscardHandler)

func newCommands(t testing.TB, onKeep func(Result), list ...Command) *Commands {
	t.Helper()
	c, err := NewCommands(list, quiet, func(r Result) error {
		if onKeep != nil {
			onKeep(r)
		}
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// returns makes a command that ends at once with a value or an error.
func returns(v any, err error) func(context.Context, json.RawMessage) (any, error) {
	return func(context.Context, json.RawMessage) (any, error) { return v, err }
}

// onWire prints a result as on the wire, without its random id.
func onWire(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"`).ReplaceAllString(string(b), `"ID"`)
}

func TestNewCommandsRefuses(t *testing.T) {
	run := returns(nil, nil)
	for _, tt := range []struct {
		name string
		list []Command
	}{
		{"no extension", []Command{{Name: "sync", Run: run}}},
		{"empty extension", []Command{{Name: ".sync", Run: run}}},
		{"empty name", []Command{{Name: "standby.", Run: run}}},
		{"nothing to run", []Command{{Name: "standby.sync"}}},
		{"twice", []Command{{Name: "standby.sync", Run: run}, {Name: "standby.sync", Run: run, Async: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewCommands(tt.list, quiet, nil, nil); err == nil {
				t.Error("NewCommands succeeded")
			}
		})
	}
}

func TestCommandResults(t *testing.T) {
	type value struct {
		Root string `json:"root uuid"`
	}
	tests := []struct {
		name  string
		run   func(context.Context, json.RawMessage) (any, error)
		sync  string // the result of a synchronous command, or its error
		async string // that of an asynchronous one, at its end
	}{
		{"nothing", returns(nil, nil),
			`"SUCCEEDED","command_error":null,"command_result":null}`, ""},
		{"object", returns(value{"0x1234"}, nil),
			`"SUCCEEDED","command_error":null,"command_result":{"root uuid":"0x1234"}}`, ""},
		{"empty object", returns(map[string]string{}, nil),
			`"SUCCEEDED","command_error":null,"command_result":{}}`, ""},
		{"string", returns("image written", nil),
			`"SUCCEEDED","command_error":null,"command_result":{"result":"image written"}}`,
			`"SUCCEEDED","command_error":null,"command_result":{"result":"test: image written"}}`},
		{"own error", returns(nil, newError("CleaningError", "sda")),
			`"FAILED","command_error":{"type":"CleaningError","code":500,"message":"Clean step failed","details":"sda"},"command_result":null}`, ""},
		{"foreign error", returns("ignored", io.ErrClosedPipe),
			`"FAILED","command_error":{"type":"CommandExecutionError","code":500,"message":"Command execution failed","details":"io: read/write on closed pipe"},"command_result":null}`, ""},
		{"versions", returns(nil, steps.ErrVersion),
			`"CLEAN_VERSION_MISMATCH","command_error":{"type":"VersionMismatch","code":409,"message":"Hardware managers version mismatch, reload agent with correct version","details":"` + steps.ErrVersion.Error() + `"},"command_result":null}`, ""},
		{"no JSON", returns(func() {}, nil),
			`"FAILED","command_error":{"type":"CommandExecutionError","code":500,"message":"Command execution failed","details":"json: unsupported type: func()"},"command_result":null}`, ""},
		{"panic", func(context.Context, json.RawMessage) (any, error) { panic("index out of range") },
			`"FAILED","command_error":{"type":"CommandExecutionError","code":500,"message":"Command execution failed","details":"panic: index out of range"},"command_result":null}`, ""},
		{"bad parameters", returns(nil, invalidParams("no %s", "step")),
			`Invalid command parameters: no step`,
			`"FAILED","command_error":{"type":"InvalidCommandParamsError","code":400,"message":"Invalid command parameters","details":"no step"},"command_result":null}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCommands(t, nil, Command{Name: "x.test", Run: tt.run}, Command{Name: "y.test", Async: true, Run: tt.run})
			if tt.async == "" {
				tt.async = tt.sync
			}
			for _, kind := range []struct{ command, want string }{{"x.test", tt.sync}, {"y.test", tt.async}} {
				var got string
				if r, err := c.Do(t.Context(), kind.command, []byte("{}"), true); err != nil {
					got = err.Error()
				} else {
					got = onWire(t, r)
				}
				want := kind.want
				if strings.HasPrefix(want, `"`) {
					want = `{"id":"ID","command_name":"test","command_status":` + want
				}
				if got != want {
					t.Errorf("%s:\n%s\nwant\n%s", kind.command, got, want)
				}
			}
			// What was the caller's fault is not a command; all else is, in its order.
			want := 2
			if !strings.HasPrefix(tt.sync, `"`) {
				want = 1
			}
			if n := len(c.List()); n != want {
				t.Errorf("%d results in the list, want %d", n, want)
			}
		})
	}
}

func TestCommandsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		end := make(chan error)
		c := newCommands(t, func(r Result) { ended = append(ended, fmt.Sprint(r.Name, " ", r.Status)) },
			Command{Name: "clean.execute_clean_step", Async: true, Run: func(ctx context.Context, params json.RawMessage) (any, error) {
				SetProgress(ctx, map[string]int{"percent": 1})
				SetProgress(ctx, map[string]int{"percent": 50})
				SetProgress(ctx, func() {}) // no JSON: nothing happens
				return params, <-end
			}},
			Command{Name: "standby.sync", Run: returns(nil, nil)},
		)
		// It answers at once and runs on, although its request is over.
		request, cancel := context.WithCancel(t.Context())
		first, err := c.Do(request, "clean.execute_clean_step", []byte(`{"a":1}`), false)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if got, want := onWire(t, first), `{"id":"ID","command_name":"execute_clean_step","command_status":"RUNNING","command_error":null,"command_result":null}`; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		synctest.Wait()

		for _, tt := range []struct{ command, want string }{
			{"clean.execute_clean_step", "Agent is busy: executing command execute_clean_step"},
			{"standby.sync", "Agent is busy: executing command execute_clean_step"},
			{"nonsense.sync", "Agent is busy: executing command execute_clean_step"},
			{"nonsense", "Invalid command: Command name must be of the form <extension>.<name>"},
		} {
			_, err := c.Do(t.Context(), tt.command, []byte("{}"), true)
			if err == nil || err.Error() != tt.want {
				t.Errorf("Do(%s) while one runs = %v, want %s", tt.command, err, tt.want)
			}
		}
		if got, want := onWire(t, c.List()), `[{"id":"ID","command_name":"execute_clean_step","command_status":"RUNNING","command_error":null,"command_result":null,"command_progress":{"percent":50}}]`; got != want {
			t.Errorf("List() = %s, want %s", got, want)
		}

		// Waiting ends with the command, and before that with the request.
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if r, err := c.Result(short, first.ID, true); r.Status != Running || err != nil || time.Since(begin) != time.Minute {
			t.Errorf("Result after %v = %v, %v", time.Since(begin), r.Status, err)
		}
		if err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "execute_clean_step") && !strings.Contains(err.Error(), "wait for a command") {
			t.Errorf("Wait = %v", err)
		}
		time.AfterFunc(time.Hour, func() { end <- nil })
		r, err := c.Result(t.Context(), first.ID, true)
		if got, want := onWire(t, r), `{"id":"ID","command_name":"execute_clean_step","command_status":"SUCCEEDED","command_error":null,"command_result":{"a":1}}`; got != want || err != nil {
			t.Errorf("Result = %s, %v, want %s", got, err, want)
		}
		synctest.Wait()
		if got := strings.Join(ended, ", "); got != "execute_clean_step RUNNING, execute_clean_step SUCCEEDED" {
			t.Errorf("told about the end of: %s", got)
		}
		if err := c.Wait(t.Context()); err != nil {
			t.Error(err)
		}

		// Now others may run, and a synchronous one tells nobody of its end.
		if _, err := c.Do(t.Context(), "standby.sync", []byte("{}"), false); err != nil {
			t.Error(err)
		}
		for _, tt := range []struct{ command, want string }{
			{"standby.nonsense", "Invalid command: Unknown command: nonsense"},
			{"nonsense.sync", "Not found: Extension with id nonsense not found."},
			{"sync", "Invalid command: Command name must be of the form <extension>.<name>"},
			{"", "Invalid command: Command name must be of the form <extension>.<name>"},
			{"standby.sync.x", "Invalid command: Unknown command: sync.x"},
		} {
			if _, err := c.Do(t.Context(), tt.command, []byte("{}"), false); err == nil || err.Error() != tt.want {
				t.Errorf("Do(%q) = %v, want %s", tt.command, err, tt.want)
			}
		}
		if _, err := c.Result(t.Context(), "nonsense", true); err == nil || err.Error() != "Not found: Command Result with id nonsense not found." {
			t.Errorf("Result(nonsense) = %v", err)
		}
		if got := len(c.List()); got != 2 || len(ended) != 2 {
			t.Errorf("%d results, told about %d", got, len(ended))
		}
	})
}

// The answer to a request that does not wait is that the command runs, however soon that has ended.
func TestAsynchronousCommandsBegin(t *testing.T) {
	c := newCommands(t, nil, Command{Name: "x.soon", Async: true, Run: returns("ended", nil)})
	for range 20000 {
		r, err := c.Do(t.Context(), "x.soon", []byte("{}"), false)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != Running || r.Value != nil {
			t.Fatalf("the first answer is %s", onWire(t, r))
		}
		if r, err = c.Result(t.Context(), r.ID, true); err != nil || r.Status != Succeeded {
			t.Fatalf("the result is %s, %v", onWire(t, r), err)
		}
	}
}

// The end of a command is kept before anybody sees it: what is kept after it is of the next command.
func TestEndIsKeptBeforeItIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := state{t.TempDir()}
		seen := make(chan struct{}, 2)
		keep := func(r Result) error {
			if r.Name == "one" && r.Status != Running {
				time.Sleep(time.Second)
			}
			return s.keepCommand(r)
		}
		c, err := NewCommands([]Command{
			{Name: "a.one", Async: true, Run: returns("x", nil)},
			{Name: "a.two", Async: true, Run: func(ctx context.Context, _ json.RawMessage) (any, error) { <-ctx.Done(); return nil, nil }},
		}, quiet, keep, func() { seen <- struct{}{} })
		if err != nil {
			t.Fatal(err)
		}
		defer synctest.Wait()
		defer c.Stop()
		kept := func(want string) {
			t.Helper()
			r, err := s.command()
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(r.Name, " ", r.Status); got != want {
				t.Errorf("kept is %s, want %s", got, want)
			}
		}
		if _, err := c.Do(t.Context(), "a.one", []byte("{}"), false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := c.Do(t.Context(), "a.two", []byte("{}"), false); err == nil || !strings.Contains(err.Error(), "Agent is busy") {
			t.Fatalf("the next command while the end of one is not kept yet: %v", err)
		}
		kept("one RUNNING")
		if err := c.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		kept("one SUCCEEDED")
		<-seen
		if _, err := c.Do(t.Context(), "a.two", []byte("{}"), false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		kept("two RUNNING")
	})
}

// A command of which nothing can be kept does not begin; one whose end cannot be kept has ended all the same.
func TestCommandsThatCannotBeKept(t *testing.T) {
	full := errors.New("no space left on device")
	for _, tt := range []struct {
		name  string
		fails Status
		do    string // the error of the request
		began int
	}{
		{"the beginning", Running, "Command execution failed: b did not start: keep it for an agent after this one: no space left on device", 0},
		{"the end", Succeeded, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began, wakes := 0, 0
			run := func(context.Context, json.RawMessage) (any, error) { began++; return nil, nil }
			c, err := NewCommands([]Command{{Name: "a.b", Async: true, Run: run}}, quiet, func(r Result) error {
				if r.Status == tt.fails {
					return full
				}
				return nil
			}, func() { wakes++ })
			if err != nil {
				t.Fatal(err)
			}
			defer c.Stop()
			synctest.Test(t, func(t *testing.T) {
				r, err := c.Do(t.Context(), "a.b", []byte("{}"), true)
				if tt.do == "" && (err != nil || r.Status != Succeeded) || tt.do != "" && (err == nil || err.Error() != tt.do || !errors.Is(err, full)) {
					t.Errorf("Do = %s, %v, want %q", r.Status, err, tt.do)
				}
				synctest.Wait()
			})
			if list := c.List(); began != tt.began || len(list) != tt.began || wakes != tt.began {
				t.Errorf("%d began, %d in the list, %d heartbeats were asked for, want %d", began, len(list), wakes, tt.began)
			}
		})
	}
}

// A synchronous command runs inside its request; others wait for it, or give up with their own.
func TestSynchronousCommandsWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := 0
		c := newCommands(t, nil, Command{Name: "poll.get_hardware_info", Run: func(ctx context.Context, params json.RawMessage) (any, error) {
			running++
			defer func() { running-- }()
			time.Sleep(10 * time.Second)
			return running, nil
		}})
		begin := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				r, err := c.Do(t.Context(), "poll.get_hardware_info", []byte("{}"), false)
				if err != nil || string(r.Value) != "1" {
					t.Errorf("Do = %s, %v", r.Value, err)
				}
			})
		}
		time.Sleep(time.Second)
		if n := len(c.List()); n != 0 {
			t.Errorf("%d results while the first runs", n)
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Do(impatient, "poll.get_hardware_info", []byte("{}"), false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do with an impatient request = %v", err)
		}
		if err := c.Wait(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v", err)
		}
		wg.Wait()
		if took := time.Since(begin); took != 30*time.Second || len(c.List()) != 3 {
			t.Errorf("three commands of 10 s took %v and left %d results", took, len(c.List()))
		}
	})
}

func TestCommandsStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCommands(t, nil, Command{Name: "a.b", Async: true, Run: func(ctx context.Context, params json.RawMessage) (any, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // taking things down
			return nil, ctx.Err()
		}})
		if _, err := c.Do(t.Context(), "a.b", []byte("{}"), false); err != nil {
			t.Fatal(err)
		}
		c.Stop()
		if err := c.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if got := c.List()[0]; got.Status != Failed || got.Error.Details != "context canceled" {
			t.Errorf("the command ended as %s", onWire(t, got))
		}
		if _, err := c.Do(t.Context(), "a.b", []byte("{}"), false); err == nil || !strings.Contains(err.Error(), "the agent is going down") {
			t.Errorf("Do after Stop = %v", err)
		}
	})
}

// The history is bounded in number and in bytes, and its end is always whole.
func TestHistoryIsBounded(t *testing.T) {
	large := strings.Repeat("x", 5<<20)
	n := 0
	c := newCommands(t, nil,
		Command{Name: "a.small", Run: func(context.Context, json.RawMessage) (any, error) { n++; return n, nil }},
		Command{Name: "log.collect_system_logs", Run: returns(map[string]string{"system_logs": large}, nil)},
		Command{Name: "a.huge", Async: true, Run: returns(map[string]string{"x": strings.Repeat(large, 5)}, nil)},
	)
	do := func(name string) {
		t.Helper()
		if _, err := c.Do(t.Context(), name, []byte("{}"), true); err != nil {
			t.Fatal(err)
		}
	}
	shape := func() string {
		var b strings.Builder
		for _, r := range c.List() {
			fmt.Fprintf(&b, "%s:%dM ", r.Name, len(r.Value)>>20)
		}
		return b.String()
	}
	for range 5 {
		do("log.collect_system_logs")
	}
	if got, want := shape(), "collect_system_logs:0M collect_system_logs:0M collect_system_logs:5M collect_system_logs:5M collect_system_logs:5M "; got != want {
		t.Errorf("history %s, want %s", got, want)
	}
	do("a.huge")
	if got, want := shape(), strings.Repeat("collect_system_logs:0M ", 5)+"huge:25M "; got != want {
		t.Errorf("history %s, want %s", got, want)
	}
	for range maxHistory + 5 {
		do("a.small")
	}
	list := c.List()
	if len(list) != maxHistory || string(list[0].Value) != "6" || string(list[maxHistory-1].Value) != fmt.Sprint(maxHistory+5) {
		t.Errorf("%d results from %s to %s", len(list), list[0].Value, list[len(list)-1].Value)
	}
	if r, err := c.Result(t.Context(), list[0].ID, true); err != nil || string(r.Value) != "6" {
		t.Errorf("Result of the oldest = %s, %v", r.Value, err)
	}
}

func TestProgressOutsideOfACommand(t *testing.T) {
	SetProgress(t.Context(), "nobody sees it") // must not panic
}

// What an agent that was killed leaves behind: Ironic takes an empty list for a reboot that a step asked for, and goes on.
func TestResume(t *testing.T) {
	large := `"` + strings.Repeat("x", maxKeptResult) + `"`
	for _, tt := range []struct {
		name string
		kept Result
		want string
	}{
		{
			"running", Result{ID: "a", Name: "execute_deploy_step", Status: Running},
			`{"id":"a","command_name":"execute_deploy_step","command_status":"FAILED","command_error":{"type":"AgentRestartedError","code":500,"message":"The agent was started again","details":"execute_deploy_step: the agent was killed while it ran, and has been started again: what it did is not whole"},"command_result":null}`,
		},
		{
			"ended", Result{ID: "a", Name: "execute_deploy_step", Status: Succeeded, Value: []byte(`{"a":1}`)},
			`{"id":"a","command_name":"execute_deploy_step","command_status":"SUCCEEDED","command_error":null,"command_result":{"a":1}}`,
		},
		{
			"ended, with a large argument", Result{ID: "a", Name: "execute_deploy_step", Status: Succeeded,
				Value: []byte(`{"deploy_result":{"disk":"/dev/sda"},"deploy_step":{"step":"write_image","interface":"deploy","args":{"configdrive":` + large + `}}}`)},
			`{"id":"a","command_name":"execute_deploy_step","command_status":"SUCCEEDED","command_error":null,"command_result":{"deploy_result":{"disk":"/dev/sda"},"deploy_step":{"interface":"deploy","step":"write_image"}}}`,
		},
		{
			"ended, with a large result", Result{ID: "a", Name: "execute_clean_step", Status: Succeeded,
				Value: []byte(`{"clean_result":` + large + `,"clean_step":{"step":"burnin","interface":"deploy"}}`)},
			`{"id":"a","command_name":"execute_clean_step","command_status":"SUCCEEDED","command_error":null,"command_result":{"clean_result":null,"clean_step":{"step":"burnin","interface":"deploy"}}}`,
		},
		{
			"ended, large and no step", Result{ID: "a", Name: "install_bootloader", Status: Succeeded, Value: []byte(large)},
			`{"id":"a","command_name":"install_bootloader","command_status":"SUCCEEDED","command_error":null,"command_result":null}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := state{t.TempDir()}
			if err := s.keepCommand(tt.kept); err != nil {
				t.Fatal(err)
			}
			kept, err := s.command()
			if err != nil {
				t.Fatal(err)
			}
			c := newCommands(t, nil, Command{Name: "standby.sync", Run: func(context.Context, json.RawMessage) (any, error) { return nil, nil }})
			c.Resume(*kept)
			if list := c.List(); len(list) != 1 || onWire(t, list[0]) != tt.want {
				t.Errorf("list = %s, want %s", onWire(t, list[0]), tt.want)
			}
			if _, err := c.Do(t.Context(), "standby.sync", []byte("{}"), true); err != nil {
				t.Errorf("the next command: %v", err)
			}
		})
	}
	if kept, err := (state{t.TempDir()}).command(); kept != nil || err != nil {
		t.Errorf("nothing kept: %v, %v", kept, err)
	}
}
