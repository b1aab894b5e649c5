// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/torrent"
)

func writeCommand() command {
	return command{
		name: "write", args: "SOURCE [SOURCE...] DEVICE [--digest ALGO:HEX|URL] [--cafile FILE] [--auth-file FILE] [--public-key FILE [--signature FILE|URL]] [--format auto|raw|qcow2] [--connections N] [--peer HOST:PORT] [--config-drive FILE|DIR] [--read-back none|sample|full] [--yes] [--json]",
		help:    "Write an image onto a disk. SOURCE is a file, an http(s):// URL, a disk image in a registry, oci://HOST/REPOSITORY:TAG, or a torrent: a file or URL ending in .torrent, or a magnet link; several are mirrors of one image.",
		example: "ironhand write https://192.0.2.1/debian.img.zst /dev/sda --digest sha512:9f2c...",
		run:     runWrite,
	}
}

func runWrite(ctx context.Context, c *call) error {
	digestText := c.flags.String("digest", "", "digest of the file as it is published, `ALGO:HEX` such as sha256:9f2c..., or the URL of a checksum file")
	contentText := c.flags.String("content-digest", "", "`ALGO:HEX` of the bytes of the disk, as the image has them unpacked; not for qcow2")
	caFile := c.flags.String("cafile", "", "`file` of CA certificates, PEM: with it no other CA is trusted")
	authFile := c.flags.String("auth-file", "", "`file` with logins for registries and https servers, by their hosts, as podman login and docker login write it")
	keyFile := c.flags.String("public-key", "", "`file` with public keys, of minisign or PEM: the image must be signed by one of them")
	signatureName := c.flags.String("signature", "", "`file` or URL of the signature, as minisign or cosign sign-blob --key makes it; without it the name of the image and .minisig, or .sig")
	connections := c.flags.Int("connections", 4, "make `N` connections to a web server that sends parts of files, 1 to 16")
	patience := c.flags.Duration("patience", 5*time.Minute, "keep trying for this `TIME` after a failure without getting ahead")
	formatText := c.flags.String("format", "auto", "`FORMAT` that the image must have, plain or packed: auto, raw or qcow2")
	drive := c.flags.String("config-drive", "", "`path` of a config drive: an image, or a directory that becomes one")
	readBack := stream.ReadBackSample
	c.flags.TextVar(&readBack, "read-back", readBack, "read back and compare this `PART`: none, sample or full")
	progress := c.flags.String("progress", "auto", "`HOW` progress is shown: auto, a bar on a terminal, else plain; plain, a line every 5 s, and when something happens; json, the same as JSON; none")
	swarm := swarmFlags(c.flags)
	share := c.flags.Duration("share", 0, "of a torrent: go on sharing for this `TIME` after the image is written")
	ratio := c.flags.Float64("share-ratio", 0, "of a torrent: go on sharing until so many `copies` were sent, or --share is over")
	yes := c.flags.Bool("yes", false, "do not ask")
	asJSON := c.flags.Bool("json", false, "print the result as JSON")
	args, err := c.parse(2, -1)
	if err != nil {
		return err
	}
	switch *progress {
	case "auto", "plain", "json", "none":
	default:
		return usagef("--progress %s: want auto, plain or none", *progress)
	}
	target, names := args[len(args)-1], args[:len(args)-1]
	if err := apart(names, target); err != nil {
		return err
	}
	if *connections < 1 || *connections > stream.MaxConnections {
		return usagef("--connections %d: want 1 to %d", *connections, stream.MaxConnections)
	}
	if *patience <= 0 {
		return usagef("--patience %v: want a time", *patience)
	}
	content, err := parseDigest("--content-digest", *contentText)
	if err != nil {
		return err
	}
	format, err := image.ParseFormat(*formatText)
	if err != nil {
		return usagef("--format: %v", err)
	}
	if slices.ContainsFunc(names, stream.IsOCI) && *keyFile != "" && *signatureName == "" {
		return usagef("--public-key: a registry has no signature beside the image; name one with --signature")
	}
	web, err := newWeb(*caFile, *authFile, *patience)
	if err != nil {
		return err
	}
	web.warnings = c.stderr
	var digest stream.Digest
	if isWeb(*digestText) {
		digest, err = web.digest(ctx, *digestText, names)
	} else {
		digest, err = parseDigest("--digest", *digestText)
	}
	if err != nil {
		return err
	}
	if web.torrent, err = swarm(); err != nil {
		return err
	}
	sources, digest, err := web.sources(ctx, names, digest, *keyFile != "")
	if err != nil {
		return err
	}
	for _, s := range sources {
		if s, ok := s.(*torrent.Source); ok {
			defer s.Close() // what was shared was read only
		}
	}
	signature, err := web.signature(ctx, *keyFile, *signatureName, names)
	if err != nil {
		return err
	}
	if signature.Comment != "" {
		fmt.Fprintf(c.stderr, "signed: %.300q\n", signature.Comment)
	}
	driveImage, err := readDrive(*drive)
	if err != nil {
		return err
	}
	// From here on it is this device, whatever becomes of a name that leads to it.
	if target, err = filepath.EvalSymlinks(target); err != nil {
		return err
	}
	chosen, what, err := describeDisk(ctx, target)
	if err != nil {
		return err
	}
	if !*yes {
		fmt.Fprintf(c.stderr, "Everything on %s will be lost. Write %s to it? Type yes: ", what, sources[0])
		if err := c.answered(ctx); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.stderr, "writing %s to %s\n", sources[0], what)
	}
	disk, err := stream.OpenDevice(target)
	if err != nil {
		return err
	}
	open := []*stream.Device{disk}
	defer func() {
		for _, d := range open {
			d.Close() // it was synced
		}
	}()
	if chosen.Name != "" {
		if err := steps.SameDisk(ctx, inspect.Local(), chosen, disk.Size(), disk.SectorSize()); err != nil {
			return err
		}
		for _, name := range chosen.Names() { // nobody uses it by another path, until it is written
			if name == target {
				continue
			}
			switch other, err := stream.OpenDevice(name); {
			case errors.Is(err, syscall.EBUSY):
				return fmt.Errorf("%s is the same disk: %w", name, err)
			case err == nil:
				open = append(open, other)
			}
		}
	}
	memory, err := inspect.Local().AvailableMemory()
	if err != nil {
		return err
	}
	spec := image.Spec{Sources: sources, Digest: digest, Signature: signature, Content: content, Connections: *connections, Patience: *patience, Format: format, ConfigDrive: driveImage, ReadBack: readBack, Memory: memory}
	var last stream.Progress
	spec.Progress = func(p stream.Progress) { last = p }
	var d *drawer
	if *progress != "none" {
		d = newDrawer(c.stderr, *progress)
		spec.Progress = func(p stream.Progress) {
			last = p
			d.show(p, false)
		}
	}
	result, err := image.Write(ctx, disk, spec)
	if d != nil {
		d.show(last, true)
		d.finish()
	}
	if err != nil {
		return fmt.Errorf("write %s to %s: %w", sources[0], target, err)
	}
	for _, w := range result.Warnings {
		fmt.Fprintf(c.stderr, "warning: %s\n", w)
	}
	if s, ok := sources[0].(*torrent.Source); ok && (*share > 0 || *ratio > 0) {
		// What is shared is read through a handle of its own, which keeps nobody from mounting the disk.
		for _, d := range open {
			if err := d.Close(); err != nil {
				return fmt.Errorf("close %s: %w", target, err)
			}
		}
		open = nil
		fmt.Fprintf(c.stderr, "sharing %s\n", s)
		s.Share(ctx, *share, *ratio)
	}
	if *asJSON {
		return writeJSON(c, map[string]any{
			"device": target, "format": result.Format, "compression": result.Compression, "disk_id": result.DiskID, "size": result.Written.Size,
			"bytes_written": result.Written.Bytes, "bytes_zeroed": result.Written.Zeroed, "bytes_checked": result.Written.Checked,
			"progress": last,
		})
	}
	_, err = fmt.Fprintf(c.stdout, "wrote %s: %d bytes written, %d zeroed, %d read back and right\n", target,
		result.Written.Bytes, result.Written.Zeroed, result.Written.Checked)
	return err
}

func parseDigest(flag, text string) (stream.Digest, error) {
	if text == "" {
		return stream.Digest{}, nil
	}
	algorithm, hex, found := strings.Cut(text, ":")
	if !found {
		return stream.Digest{}, usagef("%s %s: want algorithm:hex", flag, text)
	}
	d, err := stream.ParseDigest(algorithm, hex)
	if err != nil {
		return stream.Digest{}, usagef("%s: %v", flag, err)
	}
	return d, nil
}

// eofIsNoAnswer keeps an error of the terminal, but for its end.
func eofIsNoAnswer(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// maxDrive is the most that a config drive may have, as on the wire.
const maxDrive = 64 << 20

// readDrive reads a config drive's image, or makes one of a directory.
func readDrive(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		b, err := readRegular(path, maxDrive)
		if err != nil {
			return nil, fmt.Errorf("config drive: %w", err)
		}
		return b, nil
	}
	files := map[string][]byte{}
	total := 0
	err = fs.WalkDir(os.DirFS(path), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := readRegular(filepath.Join(path, name), maxDrive-int64(total))
		total += len(b)
		files[name] = b
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("config drive %s: %w", path, err)
	}
	return image.MakeConfigDrive(files)
}

// readRegular reads a file, and nothing else that has a name: a device or a pipe may never end.
func readRegular(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name) // before it is opened: a pipe would wait for a writer
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than the %d bytes allowed", name, limit)
	}
	return b, err
}

// apart refuses a source that would be overwritten while it is read: the target, a part of it, or the disk that it is a part of. What is
// mounted from the target, or built on it, keeps the target from being opened.
func apart(sources []string, target string) error {
	onto, err := sysDirectory(target)
	if err != nil || onto == "" {
		return err // another device than a block device is refused when it is opened
	}
	for _, s := range sources {
		if strings.Contains(s, "://") || torrent.IsMagnet(s) {
			continue
		}
		from, err := sysDirectory(s)
		if err != nil {
			return err
		}
		if from != "" && (strings.HasPrefix(from+"/", onto+"/") || strings.HasPrefix(onto+"/", from+"/")) { // a partition is a directory in its disk's
			return usagef("%s and %s are on the same disk: the image would be overwritten while it is read", s, target)
		}
	}
	return nil
}

// describeDisk names a disk for the question whether to write to it. The disk is the zero Disk for a device that is none of the machine's disks.
func describeDisk(ctx context.Context, path string) (inspect.Disk, string, error) {
	disks, err := inspect.Local().Disks(ctx)
	for _, d := range disks {
		if slices.Contains(d.Names(), path) {
			return d, d.String(), nil
		}
	}
	info, serr := os.Stat(path)
	if serr != nil {
		return inspect.Disk{}, "", serr
	}
	if info.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		return inspect.Disk{}, "", fmt.Errorf("%s is not a block device", path)
	}
	if err != nil {
		return inspect.Disk{}, "", fmt.Errorf("list disks: %w", err)
	}
	return inspect.Disk{}, path + " (not one of this machine's disks: a partition, loop or other device)", nil
}
