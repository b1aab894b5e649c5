// SPDX-License-Identifier: Apache-2.0

package conductor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// The states of a command.
const (
	running   = "RUNNING"
	succeeded = "SUCCEEDED"
	failed    = "FAILED"
)

// command is a command's state as the agent tells it. The name is the bare one, without extension.
type command struct {
	ID       string          `json:"id"`
	Name     string          `json:"command_name"`
	Status   string          `json:"command_status"`
	Error    *commandError   `json:"command_error"`
	Result   json.RawMessage `json:"command_result"`
	Progress json.RawMessage `json:"command_progress"` // while it runs; ironhand's own
}

// progress says for people how far a running command is; "" if it does not tell. That of an image is
// read, any other is shown as it is.
func (c command) progress() string {
	if len(c.Progress) == 0 || string(c.Progress) == "null" {
		return ""
	}
	var p struct {
		Phase   string `json:"phase"`
		Read    int64  `json:"bytes_read"`
		Total   int64  `json:"bytes_total"`
		Retries int    `json:"retries"`
	}
	if err := json.Unmarshal(c.Progress, &p); err != nil || p.Phase == "" {
		return printable(string(c.Progress))
	}
	text := fmt.Sprintf("%s, %d MiB read", printable(p.Phase), p.Read>>20)
	if p.Total > 0 {
		text += fmt.Sprintf(" of %d", p.Total>>20)
	}
	if p.Retries > 0 {
		text += fmt.Sprintf(", %d retries", p.Retries)
	}
	return text
}

type commandList struct {
	Commands []command `json:"commands"`
}

type commandError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Details string `json:"details"`
}

// failure is the reason of a command that ended without success. Ironic shows the details, else the message.
func (c command) failure() error {
	reason := "no reason given"
	if e := c.Error; e != nil {
		if e.Details != "" {
			reason = e.Details
		} else if e.Message != "" {
			reason = e.Message
		}
		if e.Type != "" {
			reason += " (" + e.Type + ")"
		}
	}
	return fmt.Errorf("command %s: %s", printable(c.Status), printable(reason))
}

var (
	// errBusy is the answer of an agent that runs another command: ask again at the next heartbeat.
	errBusy = errors.New("agent is busy")
	// errUnreachable wraps what went wrong on the way to the agent: ask again at the next heartbeat.
	errUnreachable = errors.New("agent does not answer")
)

// The client's bounds. A finished write_image echoes its arguments, so the list of commands holds the config drive twice.
const (
	maxAnswer = 48 << 20
	attempts  = 3
)

// commands returns all commands since the agent started, oldest first.
func (a *agent) commands(ctx context.Context) ([]command, error) {
	var list commandList
	var err error
	for range attempts {
		if err = a.call(ctx, http.MethodGet, url.Values{}, nil, &list); !errors.Is(err, errUnreachable) || ctx.Err() != nil {
			break
		}
	}
	return list.Commands, err
}

// run starts a command and returns its state: final if wait is true or the command is a synchronous one.
//
// When the answer is lost, the command may be running nevertheless. So before it is sent again the list is asked, and a
// last command of this name that is running is taken for it (ironic/drivers/modules/agent_client.py).
func (a *agent) run(ctx context.Context, name string, params any, wait bool) (command, error) {
	body, err := json.Marshal(map[string]any{"name": name, "params": params})
	if err != nil {
		return command{}, err
	}
	query := url.Values{"wait": {fmt.Sprint(wait)}}
	for range attempts {
		var c command
		err = a.call(ctx, http.MethodPost, query, body, &c)
		if err == nil && c.Status == "" {
			return command{}, errors.New("agent's answer has no command_status")
		}
		if !errors.Is(err, errUnreachable) || ctx.Err() != nil {
			return c, err
		}
		var list commandList
		if a.call(ctx, http.MethodGet, url.Values{}, nil, &list) == nil && len(list.Commands) > 0 {
			if last := list.Commands[len(list.Commands)-1]; last.Name == bare(name) && last.Status == running {
				return last, nil
			}
		}
	}
	return command{}, err
}

// call sends one request. Its errors name neither the URL's query nor the body, for the token is in one and the config
// drive in the other.
func (a *agent) call(ctx context.Context, method string, query url.Values, body []byte, answer any) error {
	query.Set("agent_token", string(a.token))
	req, err := http.NewRequestWithContext(ctx, method, a.url+"/v1/commands/?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return errors.New("agent's URL cannot be requested")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case len(b) > maxAnswer:
		return fmt.Errorf("agent answers with more than %d bytes", maxAnswer)
	case err != nil:
		return fmt.Errorf("%w: read its answer: %w", errUnreachable, err)
	case resp.StatusCode == http.StatusConflict:
		return errBusy
	case resp.StatusCode >= 400:
		return fmt.Errorf("agent answers %d: %s", resp.StatusCode, fault(b))
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("agent's answer is not the expected JSON: %s", printable(err.Error()))
	}
	return nil
}

// fault is the reason in an agent's error answer.
func fault(b []byte) string {
	var f struct {
		String string `json:"faultstring"`
	}
	if json.Unmarshal(b, &f) != nil || f.String == "" {
		return "no reason given"
	}
	return printable(f.String)
}

// bare is a command's name without its extension, as agents list it.
func bare(name string) string {
	_, b, _ := strings.Cut(name, ".")
	return b
}

func wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}
