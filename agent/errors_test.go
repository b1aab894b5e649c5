// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

func TestAsError(t *testing.T) {
	own := newError("CleaningError", "sda: %w", io.ErrUnexpectedEOF)
	tests := []struct {
		name string
		err  error
		want string // as JSON
	}{
		{"own", own, `{"type":"CleaningError","code":500,"message":"Clean step failed","details":"sda: unexpected EOF"}`},
		{"own, wrapped", fmt.Errorf("step erase: %w", own), `{"type":"CleaningError","code":500,"message":"Clean step failed","details":"step erase: Clean step failed: sda: unexpected EOF"}`},
		{"digest", fmt.Errorf("write: %w", &stream.DigestError{Want: stream.Digest{Algorithm: "md5", Hex: "00"}, Got: stream.Digest{Algorithm: "md5", Hex: "11"}}),
			`{"type":"ImageChecksumError","code":500,"message":"Error verifying image checksum","details":"write: digest does not match: want md5:00, got md5:11"}`},
		{"no disk", fmt.Errorf("choose: %w: 3 disks looked at", inspect.ErrNoDisk), `{"type":"DeviceNotFound","code":404,"message":"Error finding the disk or partition device to deploy the image onto","details":"choose: no suitable disk: 3 disks looked at"}`},
		{"no image there", &stream.StatusError{URL: "http://a/b", Status: 404}, `{"type":"ImageDownloadError","code":500,"message":"Error downloading image","details":"fetch http://a/b: 404 Not Found"}`},
		{"versions", fmt.Errorf("x: %w", steps.ErrVersion), `{"type":"VersionMismatch","code":409,"message":"Hardware managers version mismatch, reload agent with correct version","details":"x: ` + steps.ErrVersion.Error() + `"}`},
		{"root partition too small, as it turns out", fmt.Errorf("%w: %w", image.ErrRootTooSmall, stream.ErrTooLarge), `{"type":"InvalidCommandParamsError","code":400,"message":"Invalid command parameters","details":"root partition is too small for the requested image: image is larger than the disk"}`},
		{"sizes that cannot be, in the request", fmt.Errorf("%w: %w", steps.ErrArgs, image.ErrLayout), `{"type":"InvalidCommandParamsError","code":400,"message":"Invalid command parameters","details":"invalid arguments: partition layout"}`},
		{"sizes that cannot be, on this disk", image.ErrLayout, `{"type":"DeploymentError","code":500,"message":"Deploy step failed","details":"partition layout"}`},
		{"no partition", steps.ErrPartition, `{"type":"DeviceNotFound","code":404,"message":"Error finding the disk or partition device to deploy the image onto","details":"no such partition"}`},
		{"foreign", io.ErrClosedPipe, `{"type":"CommandExecutionError","code":500,"message":"Command execution failed","details":"io: read/write on closed pipe"}`},
		{"foreign, joined with own", errors.Join(io.ErrClosedPipe, own), `{"type":"CleaningError","code":500,"message":"Clean step failed","details":"io: read/write on closed pipe\nClean step failed: sda: unexpected EOF"}`},
		{"type that nobody knows", newError("Typo", "x"), `{"type":"Typo","code":500,"message":"An error occurred","details":"x"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := asError(tt.err)
			got, err := json.Marshal(e)
			if err != nil || string(got) != tt.want {
				t.Errorf("asError(%v) =\n%s, %v, want\n%s", tt.err, got, err, tt.want)
			}
			if tt.err != error(e) && !errors.Is(e, tt.err) {
				t.Errorf("asError(%v) does not unwrap to it", tt.err)
			}
		})
	}
	if !errors.Is(own, io.ErrUnexpectedEOF) {
		t.Error("newError does not unwrap to what is behind its %w")
	}
	long := asError(errors.New(strings.Repeat("ä", 1<<20)))
	if n := len(long.Details); n > 9000 || !strings.HasSuffix(long.Details, "ää...") {
		t.Errorf("details of %d bytes", n)
	}
}

// Every type that the package's sources name must be one that Ironic's users know.
func TestErrorTypesAreKnown(t *testing.T) {
	known := map[string]bool{}
	for _, e := range errorTable {
		if known[e.typ] {
			t.Errorf("%s is there twice", e.typ)
		}
		known[e.typ] = true
		if e.code < 400 || e.code > 500 || e.message == "" {
			t.Errorf("%s has code %d and message %q", e.typ, e.code, e.message)
		}
	}
	for _, f := range errorForms {
		if !known[f.typ] {
			t.Errorf("%v becomes %s, which is not known", f.is, f.typ)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			function, ok := call.Fun.(*ast.Ident)
			literal, isLiteral := call.Args[0].(*ast.BasicLit)
			if !ok || !isLiteral || function.Name != "newError" {
				return true
			}
			typ, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			if !known[typ] {
				t.Errorf("%s: newError(%q): this type is not known", name, typ)
			}
			return true
		})
	}
	if seen < 5 {
		t.Errorf("only %d calls of newError found", seen)
	}
}
