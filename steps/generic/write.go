// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/lvm"
	"github.com/ironhand/ironhand/steps/raid"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/torrent"
)

// A request is what writeImage is asked for.
type request struct {
	info      imageInfo
	format    image.Format // that it must have
	digest    stream.Digest
	checksums string // URL of the file that has the digest; empty if it is given
	sources   []stream.Source
	drive     *string // as image.ReadConfigDrive takes it; nil or "" for none

	partitions partitionInfo // of a partition image
}

// parseRequest reads and checks the arguments; nothing is fetched.
func parseRequest(h steps.Host, raw json.RawMessage) (*request, error) {
	var args struct {
		ImageInfo   json.RawMessage `json:"image_info"`
		ConfigDrive *string         `json:"configdrive"`
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, fmt.Errorf("%w: %v", steps.ErrArgs, err)
		}
	}
	info, err := parseImageInfo(args.ImageInfo)
	if err != nil {
		return nil, err
	}
	digest, checksums, err := info.digest()
	if err != nil {
		return nil, err
	}
	if err := allowed(h, digest); err != nil {
		return nil, err
	}
	format, err := info.format(h.Download.Formats)
	if err != nil {
		return nil, err
	}
	sources, err := info.sources(h)
	if err != nil {
		return nil, err
	}
	drive := args.ConfigDrive
	if drive == nil || *drive == "" {
		drive = info.ConfigDrive
	}
	r := &request{info: info, format: format, digest: digest, checksums: checksums, sources: sources, drive: drive}
	if info.isPartition() {
		r.partitions, err = parsePartitionInfo(h, args.ImageInfo)
	}
	return r, err
}

// allowed refuses a digest of an algorithm that the conductor does not allow.
func allowed(h steps.Host, d stream.Digest) error {
	if (d.Algorithm == "md5" || d.Algorithm == "sha1") && h.Download.RefuseMD5 {
		return fmt.Errorf("%w: image_info: the conductor does not allow MD5, nor with it SHA-1; give a SHA-256 or SHA-512", steps.ErrArgs)
	}
	return nil
}

// writeImage puts an image of a whole disk onto the node's root disk, or one of a file system into a partition there, and the config drive beside it.
func writeImage(ctx context.Context, h steps.Host, j steps.Job) (any, error) {
	// 1. Everything that can be wrong with the request is found before a disk is looked at.
	r, err := parseRequest(h, j.Args)
	if err != nil {
		return nil, err
	}
	if h.Share != nil {
		h.Share(nil) // the disk that it was read from may be written to now
	}
	info, digest, sources, drive := r.info, r.digest, r.sources, r.drive
	if h.Download.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, h.Download.Limit, fmt.Errorf("the download takes longer than the %v allowed", h.Download.Limit))
		defer cancel()
	}
	if r.checksums != "" {
		if digest, err = info.fetchDigest(ctx, h, r.checksums, digest.Algorithm); err != nil {
			return nil, err
		}
		if err := allowed(h, digest); err != nil {
			return nil, err
		}
	}
	signature, err := info.fetchSignature(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", info.ID, err)
	}
	var driveImage []byte
	if drive != nil && *drive != "" {
		o := image.DriveOptions{HTTP: stream.HTTPOptions{Transport: h.Transport, Stall: h.Download.Stall}, Patience: h.Download.Budget, Log: h.Log}
		if info.servedWith(*drive) {
			if o.HTTP, err = info.options(h); err != nil {
				return nil, err
			}
		}
		if driveImage, err = image.ReadConfigDrive(ctx, *drive, o); err != nil {
			return nil, fmt.Errorf("config drive for node %s: %w", j.Node.UUID, err)
		}
	}

	swarm, err := info.swarm(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", info.ID, err)
	}
	if swarm != nil {
		sources = []stream.Source{swarm}
		defer func() {
			if swarm != nil {
				swarm.Close() // it was only read from
			}
		}()
	}
	memory, err := h.Machine.AvailableMemory()
	if err != nil {
		return nil, err
	}
	var told time.Time
	var phase stream.Phase
	spec := image.Spec{
		Sources: sources, Digest: digest, Signature: signature, Format: r.format, ConfigDrive: driveImage,
		Patience: h.Download.Budget, ReadBack: h.ReadBack, Log: h.Log, Memory: memory,
		Progress: func(p stream.Progress) {
			h.Progress(p)
			if p.Phase != phase || time.Since(told) >= 5*time.Second {
				phase, told = p.Phase, time.Now()
				h.Say("%v", p)
			}
		},
	}

	// 2. The disk is chosen, printed and opened: nobody else uses it from here on.
	root, err := lvm.FindRoot(ctx, h, j.Node)
	if err != nil {
		return nil, err
	}
	if root != nil {
		return writeVolume(ctx, h, j, r, root, spec)
	}
	choice, err := steps.AwaitRootDisk(ctx, h, j.Node)
	if err != nil {
		return nil, err
	}
	also := ""
	if len(choice.Others) > 0 {
		also = fmt.Sprintf("; the hints fit %s too: the first in the list is taken", diskNames(choice.Others))
	}
	plan := fmt.Sprintf("writing %s to %v%s", sources[0], choice.Disk, also)
	h.Say("%s", plan)
	if h.Confirm != nil {
		if err := h.Confirm(ctx, plan); err != nil {
			return nil, err
		}
	}
	// Groups first: those on an array are not seen once it is stopped.
	if err := lvm.Release(ctx, h, j.Node, choice.Disk.Name); err != nil {
		return nil, err
	}
	if err := raid.Release(ctx, h, j.Node, choice.Disk.Name); err != nil {
		return nil, err
	}
	if raid.IsArray(h.Machine.FS, choice.Disk.Name) {
		letSync, err := raid.Hold(h)
		if err != nil {
			return nil, err
		}
		defer letSync()
	}
	disk, err := h.Open(choice.Disk.Name)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	if err := steps.SameDisk(ctx, h.Machine, choice.Disk, disk.Size(), disk.SectorSize()); err != nil {
		return nil, err
	}

	// 3. The image goes onto it.
	if info.isPartition() {
		return writePartitions(ctx, h, j, r, disk, choice.Disk, spec, also)
	}
	result, err := image.Write(ctx, disk, spec)
	if err != nil {
		return nil, fmt.Errorf("write image %s to %s: %w", info.ID, choice.Disk.Name, err)
	}
	for _, w := range result.Warnings {
		h.Say("WARNING: %s", w)
	}
	if swarm != nil {
		st := swarm.Stats()
		h.Say("%s: %d MiB from peers, %d MiB from mirrors, %d MiB were on the disk already, %d MiB are zeros", swarm, st.Down>>20, st.Web>>20, st.Found>>20, st.Zero>>20)
	}
	if swarm != nil && h.Share != nil {
		h.Say("sharing %s until the agent leaves", swarm)
		h.Share(swarm)
		swarm = nil
	}
	h.Say("%s: %d MiB written, %d MiB zeroed, %d MiB read back and right", choice.Disk.Name,
		result.Written.Bytes>>20, result.Written.Zeroed>>20, result.Written.Checked>>20)
	return steps.Deployed{
		Text:  fmt.Sprintf("image (%s) written to device %s root_uuid=%s%s", info.ID, choice.Disk.Name, result.DiskID, also),
		Disk:  choice.Disk.Name,
		UUIDs: map[string]any{"root uuid": result.DiskID},
	}, nil
}

// options are for all that is fetched for the image.
func (i imageInfo) options(h steps.Host) (stream.HTTPOptions, error) {
	authorization, err := i.authorization(h.Download.BasicAuth)
	if err != nil {
		return stream.HTTPOptions{}, err
	}
	o := stream.HTTPOptions{Transport: h.Transport, Stall: h.Download.Stall}
	if authorization != "" {
		o.Authorization = func() string { return authorization }
	}
	o.Proxy, err = i.proxy()
	return o, err
}

// servedWith tells whether a URL is of the image's server: only that one is told how to log in there.
func (i imageInfo) servedWith(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && slices.ContainsFunc(i.URLs, func(image string) bool {
		v, err := url.Parse(image)
		return err == nil && v.Scheme == u.Scheme && strings.EqualFold(v.Host, u.Host)
	})
}

// fetchDigest reads the image's digest from a checksum file, which nothing proves but TLS; that of an algorithm, if it is not "".
func (i imageInfo) fetchDigest(ctx context.Context, h steps.Host, where, algorithm string) (stream.Digest, error) {
	o, err := i.options(h)
	if err != nil {
		return stream.Digest{}, err
	}
	if !i.servedWith(where) {
		o.Authorization = nil
	}
	o.KeepTLS = true
	src, err := stream.NewHTTP(where, o)
	if err != nil {
		return stream.Digest{}, fmt.Errorf("%w: image_info: checksum: %v", steps.ErrArgs, err)
	}
	return stream.FetchChecksum(ctx, src, algorithm, i.name(), stream.ReaderOptions{Patience: h.Download.Budget, Log: h.Log})
}

// fetchSignature reads the image's signature if there has to be one.
func (i imageInfo) fetchSignature(ctx context.Context, h steps.Host) (stream.Signature, error) {
	if len(h.Download.PublicKeys) == 0 {
		return stream.Signature{}, nil
	}
	o, err := i.options(h)
	if err != nil {
		return stream.Signature{}, err
	}
	s, err := stream.FetchSignatureBeside(ctx, i.places(), func(name string) (stream.Source, error) { return stream.NewHTTP(name, o) },
		h.Download.PublicKeys, stream.ReaderOptions{Patience: h.Download.Budget, Log: h.Log})
	if err == nil && s.Comment != "" {
		h.Say("image %s is signed: %.300q", i.ID, s.Comment)
	}
	return s, err
}

// sources are the places of the image itself, in order.
func (i imageInfo) sources(h steps.Host) ([]stream.Source, error) {
	o, err := i.options(h)
	if err != nil {
		return nil, err
	}
	var sources []stream.Source
	for n, one := range i.URLs {
		s, err := stream.NewHTTP(one, o)
		if err != nil {
			return nil, fmt.Errorf("%w: image_info.urls[%d]: %v", steps.ErrArgs, n, err)
		}
		if !torrent.IsTorrent(one) {
			sources = append(sources, s)
		}
	}
	return sources, nil
}

func diskNames(disks []inspect.Disk) string {
	var names []string
	for _, d := range disks {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}
