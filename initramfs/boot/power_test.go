// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The two ends of the control socket together.
func TestOrder(t *testing.T) {
	tests := []struct {
		name    string
		how     How
		refuse  error
		wantErr string
	}{
		{"reboot", Reboot, nil, ""},
		{"power off", PowerOff, nil, ""},
		{"kexec", Kexec, nil, ""},
		{"refused", Kexec, errors.New("no kernel is loaded"), "no kernel is loaded"},
		{"unknown", How(9), nil, `"How(9)" is no way to go down`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := make(chan How, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				how, _ := answer(conn, func(How) error { return test.refuse }) // the other end sees the error
				got <- how
			}()
			if err := errString(order(t.Context(), path, test.how)); err != test.wantErr {
				t.Errorf("order = %q, want %q", err, test.wantErr)
			}
			want := test.how
			if test.wantErr != "" {
				want = 0
			}
			if how := <-got; how != want {
				t.Errorf("process 1 takes %v, want %v", how, want)
			}
		})
	}
}

func TestPowerWithoutInit(t *testing.T) {
	if err := order(t.Context(), filepath.Join(t.TempDir(), "none"), Reboot); !errors.Is(err, ErrNoInit) {
		t.Errorf("order = %v, want ErrNoInit", err)
	}
}

// Whoever says too much, too little or nothing is not obeyed, and holds process 1 up for a bounded time.
func TestAnswerRefuses(t *testing.T) {
	tests := []struct{ name, says string }{
		{"nothing", ""},
		{"half a word", "rebo"},
		{"another word", "explode\n"},
		{"too much", strings.Repeat("x", maxOrder) + "\nreboot\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				go func() {
					_, _ = io.WriteString(client, test.says) // it may be cut short
					_, _ = io.Copy(io.Discard, client)
				}()
				began := time.Now()
				how, err := answer(server, func(How) error { return nil })
				if err == nil || how != 0 {
					t.Errorf("answer = %v, %v; want a refusal", how, err)
				}
				if waited := time.Since(began); waited > orderTime {
					t.Errorf("answer took %v", waited)
				}
				client.Close()
			})
		})
	}
}
