// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/lvm"
	"github.com/ironhand/ironhand/stream"
)

const (
	mostFiles   = 1000
	mostContent = 64 << 20 // bytes of all files: they are all there before the first is written
)

// injection is one entry of the list of files. Source: ironic-python-agent's ironic_python_agent/inject_files.py.
type injection struct {
	Path      string          `json:"path"`
	Partition json.RawMessage `json:"partition"`
	Content   *string         `json:"content"` // base64, or a URL
	Deleted   *bool           `json:"deleted"`
	Mode      *uint32         `json:"mode"`
	DirMode   *uint32         `json:"dirmode"`
	Owner     *int            `json:"owner"`
	Group     *int            `json:"group"`

	partition string // a number, a path, or what follows LABEL= or UUID=; empty: where the first directory of the path is
	file      image.File
}

// parseInjections reads and checks the files of the node, and those of the request.
func parseInjections(j steps.Job) (files []*injection, verify bool, err error) {
	invalid := func(format string, args ...any) ([]*injection, bool, error) {
		return nil, false, fmt.Errorf("%w: validation of files: %w", steps.ErrArgs, fmt.Errorf(format, args...))
	}
	var args struct {
		Files    []*injection `json:"files"`
		VerifyCA *bool        `json:"verify_ca"`
	}
	if raw := j.Node.Properties["inject_files"]; len(raw) > 0 {
		if err := strict(raw, &files); err != nil {
			return invalid("inject_files in the node's properties: %w", err)
		}
	}
	if len(j.Args) > 0 {
		if err := strict(j.Args, &args); err != nil {
			return invalid("%w", err)
		}
	}
	files = append(files, args.Files...)
	if len(files) > mostFiles {
		return invalid("there are %d files, and %d are possible", len(files), mostFiles)
	}
	for n, f := range files {
		if f == nil {
			return invalid("file %d is null", n+1)
		}
		if err := f.check(); err != nil {
			return invalid("file %d, %.200q: %w", n+1, f.Path, err)
		}
	}
	return files, args.VerifyCA == nil || *args.VerifyCA, nil
}

// strict refuses keys that are not known.
func strict(raw json.RawMessage, to any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something behind it")
	}
	return nil
}

// check looks at one file alone.
func (f *injection) check() error {
	deleted := f.Deleted != nil && *f.Deleted
	name, ok := image.CleanPath(f.Path)
	switch {
	case !ok:
		return errors.New("path: not the absolute, plain path of a file")
	case deleted && f.Content != nil:
		return errors.New("it has content, and is to be deleted")
	}
	f.file = image.File{Path: name, Deleted: deleted, Owner: -1, Group: -1}
	if p := strings.TrimSpace(string(f.Partition)); p != "" && p != "null" {
		var number int
		if json.Unmarshal(f.Partition, &number) == nil {
			f.partition = strconv.Itoa(number)
		} else if json.Unmarshal(f.Partition, &f.partition) != nil {
			return errors.New("partition: neither a number nor a text")
		}
		if n, err := strconv.Atoi(f.partition); (err != nil || n < 1) && !strings.HasPrefix(f.partition, "/dev/") && !hasName(f.partition) {
			return errors.New("partition: neither a number from 1 on, nor the path of a device, nor LABEL= or UUID= and a name")
		}
	}
	if f.partition == "" && !strings.Contains(name, "/") {
		return errors.New("partition: missing, for a file that is in no directory")
	}
	for _, m := range []struct {
		key  string
		bits *uint32
		to   **os.FileMode
	}{{"mode", f.Mode, &f.file.Mode}, {"dirmode", f.DirMode, &f.file.DirMode}} {
		if m.bits != nil {
			if *m.bits > 0o7777 {
				return fmt.Errorf("%s: %d is more than 4095, 07777 in octal", m.key, *m.bits)
			}
			mode := image.UnixMode(*m.bits)
			*m.to = &mode
		}
	}
	for _, o := range []struct {
		key string
		id  *int
		to  *int
	}{{"owner", f.Owner, &f.file.Owner}, {"group", f.Group, &f.file.Group}} {
		if o.id != nil {
			if *o.id < 0 || int64(*o.id) > 1<<32-2 {
				return fmt.Errorf("%s: %d is no number of one", o.key, *o.id)
			}
			*o.to = *o.id
		}
	}
	if f.Content == nil || strings.Contains(*f.Content, "://") {
		return nil
	}
	var err error
	if f.file.Content, err = base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(*f.Content)); err != nil {
		return errors.New("content: neither base64 nor a URL") // it may be a secret
	}
	return nil
}

func hasName(partition string) bool {
	kind, name, _ := strings.Cut(partition, "=")
	return (kind == "LABEL" || kind == "UUID") && name != ""
}

// checkInjections is for who wants to know early. The files of the node are not there yet.
func checkInjections(_ steps.Host, raw json.RawMessage) error {
	_, _, err := parseInjections(steps.Job{Args: raw})
	return err
}

// injectFiles writes files into the file systems of the disk with the operating system, or deletes some there. All that has to be fetched is there before the first is written.
func injectFiles(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	files, verify, err := parseInjections(j)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	if !h.Local {
		return nil, errors.New("files can be injected on the machine itself only")
	}

	// 1. What is not in the request.
	left := mostContent
	for _, f := range files {
		if f.Content != nil && strings.Contains(*f.Content, "://") {
			if f.file.Content, err = fetchContent(ctx, h, j, *f.Content, verify, left); err != nil {
				return nil, fmt.Errorf("process file %s: %w", f.Path, err)
			}
		}
		if left -= len(f.file.Content); left < 0 {
			return nil, fmt.Errorf("process file %s: all together have more than %d bytes", f.Path, mostContent)
		}
	}

	// 2. The disk.
	disk, volume := "", image.LogicalVolume{}
	if slices.ContainsFunc(files, func(f *injection) bool { return !strings.HasPrefix(f.partition, "/") }) {
		if disk, volume, err = injectionDisk(ctx, h, j); err != nil {
			return nil, err
		}
	}

	// 3. One after the other.
	inject := func(disk string) error {
		for _, f := range files {
			if err := f.inject(ctx, h, disk); err != nil {
				return fmt.Errorf("process file %s: %w", f.Path, err)
			}
		}
		return nil
	}
	if volume.Name != "" {
		return nil, lvm.Use(ctx, h, volume, inject)
	}
	return nil, inject(disk)
}

// injectionDisk is the disk or logical volume that was written in this boot, or else the one that would be.
func injectionDisk(ctx context.Context, h steps.Host, j steps.Job) (string, image.LogicalVolume, error) {
	if j.Deployed != nil {
		v, _ := image.ParseLogicalVolume(j.Deployed.Volume)
		return j.Deployed.Disk, v, nil
	}
	root, err := lvm.FindRoot(ctx, h, j.Node)
	if root != nil || err != nil {
		if root == nil {
			return "", image.LogicalVolume{}, err
		}
		return "", root.LogicalVolume, nil
	}
	choice, err := steps.AwaitRootDisk(ctx, h, j.Node)
	return choice.Disk.Name, image.LogicalVolume{}, err
}

// inject does one file. While it does, nobody else uses the disk.
func (f *injection) inject(ctx context.Context, h steps.Host, disk string) (err error) {
	device := disk
	if strings.HasPrefix(f.partition, "/") {
		device = f.partition
	}
	open, err := h.Open(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	v := volumes(h, device)
	var at image.Held
	if device == f.partition {
		fs, err := image.Probe(open, open.Size())
		if err != nil {
			return err
		}
		at = image.Held{Partition: image.Partition{Size: open.Size()}, FileSystem: fs}
	} else {
		parts, err := partsOf(open)
		if err != nil {
			return err
		}
		if at, err = f.choose(ctx, h, v, disk, parts); err != nil {
			return err
		}
	}
	if at.Type == "" || at.Type == "iso9660" {
		return fmt.Errorf("%w: there is no file system on it that can be written", steps.ErrPartition)
	}
	verb := "write"
	if f.file.Deleted {
		verb = "delete"
	}
	h.Say("%s %s on %s", verb, f.Path, f.where(disk, at))
	return v.Change(ctx, at.Partition, at.FileSystem, f.file.Put)
}

// partsOf are the partitions of a disk; a device without, as a logical volume, is its own partition 0.
func partsOf(d steps.Disk) ([]image.Held, error) {
	parts, err := image.PartitionsOf(d)
	if !errors.Is(err, image.ErrNoTable) {
		return parts, err
	}
	f, perr := image.Probe(d, d.Size())
	if perr != nil || f.Type == "" {
		return nil, errors.Join(err, perr)
	}
	return []image.Held{{Partition: image.Partition{Size: d.Size()}, FileSystem: f}}, nil
}

// where names a partition for people.
func (f *injection) where(disk string, at image.Held) string {
	if at.Number == 0 {
		return cmp.Or(f.partition, disk)
	}
	return partitionPath(disk, at.Number)
}

// choose finds the partition that is meant.
func (f *injection) choose(ctx context.Context, h steps.Host, v image.Volumes, disk string, parts []image.Held) (image.Held, error) {
	var found []image.Held
	kind, name, _ := strings.Cut(f.partition, "=")
	for _, p := range parts {
		switch {
		case f.partition == strconv.Itoa(p.Number), kind == "LABEL" && p.Label == name, kind == "UUID" && strings.EqualFold(p.UUID, name):
			found = append(found, p)
		case f.partition == "" && p.Type != "" && p.Type != "iso9660":
			top, _, _ := strings.Cut(f.file.Path, "/")
			has, err := image.HasDirectory(ctx, v, p, top)
			if err != nil {
				if ctx.Err() != nil {
					return p, context.Cause(ctx)
				}
				h.Say("WARNING: %s is left out: %v", partitionPath(disk, p.Number), err)
			}
			if has {
				return p, nil
			}
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return image.Held{}, fmt.Errorf("%w: %d partitions of %s have %s", steps.ErrPartition, len(found), disk, f.partition)
	case f.partition != "":
		return image.Held{}, fmt.Errorf("%w: %s has no partition %s", steps.ErrPartition, disk, f.partition)
	}
	return image.Held{}, fmt.Errorf("%w: no file system on %s has the first directory of the path", steps.ErrPartition, disk)
}

// fetchContent reads the content of a file from a URL, in which parts of the node's record may be asked for.
func fetchContent(ctx context.Context, h steps.Host, j steps.Job, address string, verify bool, most int) ([]byte, error) {
	address, err := expandURL(address, j)
	if err != nil {
		return nil, fmt.Errorf("%w: content: %w", steps.ErrArgs, err)
	}
	transport := h.Transport
	if !verify {
		t, ok := transport.(*http.Transport)
		if !ok {
			return nil, errors.New("verify_ca cannot be switched off here")
		}
		t = t.Clone()
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{}
		}
		t.TLSClientConfig.InsecureSkipVerify = true
		transport = t
		defer t.CloseIdleConnections()
		h.Say("WARNING: the server of a file is not verified, as verify_ca says")
	}
	source, err := stream.NewHTTP(address, stream.HTTPOptions{Transport: transport, Stall: h.Download.Stall, KeepTLS: true})
	if err != nil {
		return nil, fmt.Errorf("%w: content: %w", steps.ErrArgs, err)
	}
	r := stream.NewReader(ctx, []stream.Source{source}, stream.Digest{}, stream.ReaderOptions{Patience: h.Download.Budget, Log: h.Log})
	defer r.Close() // it was read
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > most {
		return nil, fmt.Errorf("all together have more than %d bytes", mostContent)
	}
	return b, nil
}

// expandURL fills in {node[...]} and {ports[...]}, as Python's str.format does; {{ and }} are braces.
func expandURL(s string, j steps.Job) (string, error) {
	var b strings.Builder
	for s != "" {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		if strings.HasPrefix(s[i:], "{{") || strings.HasPrefix(s[i:], "}}") {
			b.WriteByte(s[i])
			s = s[i+2:]
			continue
		}
		end := strings.IndexByte(s[i:], '}')
		if s[i] == '}' || end < 0 {
			return "", errors.New("a brace has no other")
		}
		value, err := lookUp(s[i+1:i+end], j)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		s = s[i+end+1:]
	}
	return b.String(), nil
}

// lookUp gives a value of the node's or a port's record: node[uuid], ports[0][address].
func lookUp(expression string, j steps.Job) (string, error) {
	unknown := fmt.Errorf("%.100q names nothing in the records of the node and its ports", expression)
	name, rest, _ := strings.Cut(expression, "[")
	var at any
	switch name {
	case "node":
		at = j.Node.Record
	case "ports":
		var ports []any
		for _, p := range j.Ports {
			ports = append(ports, p.Record)
		}
		at = ports
	default:
		return "", unknown
	}
	if rest == "" {
		return "", unknown
	}
	for rest != "" {
		key, after, ok := strings.Cut(rest, "]")
		if !ok || after != "" && (after[0] != '[' || len(after) == 1) {
			return "", unknown
		}
		rest = strings.TrimPrefix(after, "[")
		switch in := at.(type) {
		case map[string]any:
			if at, ok = in[key]; !ok {
				return "", unknown
			}
		case []any:
			n, err := strconv.Atoi(key)
			if err != nil || n < 0 || n >= len(in) {
				return "", unknown
			}
			at = in[n]
		default:
			return "", unknown
		}
	}
	switch value := at.(type) {
	case string:
		return value, nil
	case bool:
		return map[bool]string{true: "True", false: "False"}[value], nil
	case json.Number:
		return value.String(), nil
	}
	return "", unknown
}
