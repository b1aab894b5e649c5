// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/ironhand/ironhand/image/volume"
	"github.com/ironhand/ironhand/stream"
)

const (
	configDriveLabel = "config-2"
	configDriveSize  = 64 << 20 // most bytes of a config drive, and the size of a partition made for it
)

// ErrConfigDrive says that the text or data of a config drive is malformed.
var ErrConfigDrive = errors.New("config drive is not base64 encoded or the content is malformed")

// DriveOptions is how a config drive is fetched that is given by its URL. The zero value is usable.
type DriveOptions struct {
	HTTP     stream.HTTPOptions // KeepTLS is always on
	Patience time.Duration      // as in stream.ReaderOptions
	Log      *slog.Logger       // hears of each new attempt; nil is silent
}

// ReadConfigDrive gives the bytes of a config drive from any of the shapes in which Ironic names one: the URL of a file, base64 text of gzip
// data, or the bytes themselves (of ISO 9660 or FAT). Behind a URL, which is fetched as an image is, may be each of the others. The empty text is
// no config drive. Errors hold neither the content nor the query of the URL.
func ReadConfigDrive(ctx context.Context, s string, o DriveOptions) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	data := []byte(s)
	if isURL(s) {
		var err error
		if data, err = fetch(ctx, s, o); err != nil {
			return nil, fmt.Errorf("fetch config drive: %w", err)
		}
	}
	return decodeConfigDrive(data)
}

// EncodeConfigDrive gives the text that Ironic passes around: base64 of gzip data.
func EncodeConfigDrive(drive []byte) string {
	var b strings.Builder
	text := base64.NewEncoder(base64.StdEncoding, &b)
	z := gzip.NewWriter(text)
	z.Write(drive) // a strings.Builder takes everything
	z.Close()
	text.Close()
	return b.String()
}

func isURL(s string) bool {
	s = strings.ToLower(s[:min(len(s), 8)])
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

func fetch(ctx context.Context, address string, o DriveOptions) ([]byte, error) {
	o.HTTP.KeepTLS = true
	source, err := stream.NewHTTP(address, o.HTTP)
	if err != nil {
		return nil, err
	}
	r := stream.NewReader(ctx, []stream.Source{source}, stream.Digest{}, stream.ReaderOptions{Patience: o.Patience, Log: o.Log})
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, configDriveSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > configDriveSize {
		return nil, fmt.Errorf("%v: more than %d bytes", source, configDriveSize)
	}
	return b, nil
}

// decodeConfigDrive takes base64 and gzip off, as far as they are there.
func decodeConfigDrive(b []byte) ([]byte, error) {
	const gzipMagic = "\x1f\x8b"
	if !isFileSystem(b) && !bytes.HasPrefix(b, []byte(gzipMagic)) {
		text := bytes.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n", r) {
				return -1
			}
			return r
		}, b)
		decoded := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		n, err := base64.StdEncoding.Decode(decoded, text)
		if err != nil {
			return nil, ErrConfigDrive
		}
		b = decoded[:n]
	}
	if bytes.HasPrefix(b, []byte(gzipMagic)) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfigDrive, err)
		}
		if b, err = io.ReadAll(io.LimitReader(z, configDriveSize+1)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfigDrive, err)
		}
	}
	switch {
	case len(b) > configDriveSize:
		return nil, fmt.Errorf("config drive has more than %d bytes", configDriveSize)
	case !isFileSystem(b):
		return nil, fmt.Errorf("%w: it holds neither ISO 9660 nor FAT", ErrConfigDrive)
	}
	return b, nil
}

func isFileSystem(b []byte) bool {
	f, err := Probe(bytes.NewReader(b), int64(len(b)))
	return err == nil && (f.Type == "iso9660" || f.Type == "vfat")
}

// fitConfigDrive gives what to write to a partition of that many bytes on a disk with such sectors. Linux mounts a file system only if its
// blocks are not smaller than the disk's sectors, so that an ISO 9660 image, whose blocks have 2048 bytes, becomes FAT for sectors of
// 4096.
func fitConfigDrive(drive []byte, sectorSize int, room int64) ([]byte, error) {
	if len(drive) == 0 {
		return nil, nil
	}
	f, err := Probe(bytes.NewReader(drive), int64(len(drive)))
	if err != nil {
		return nil, err
	}
	switch {
	case int64(len(drive)) > min(room, configDriveSize):
		return nil, fmt.Errorf("config drive has %d bytes, its partition %d", len(drive), min(room, configDriveSize))
	case f.Type == "iso9660" && sectorSize > 2048:
		if drive, err = toFAT(drive, sectorSize, room); err != nil {
			return nil, fmt.Errorf("convert config drive to FAT: %w", err)
		}
	case f.Type == "vfat" && int(binary.LittleEndian.Uint16(drive[11:])) < sectorSize:
		return nil, fmt.Errorf("config drive is FAT with sectors of %d bytes, the disk has sectors of %d: use ISO 9660, which is converted",
			binary.LittleEndian.Uint16(drive[11:]), sectorSize)
	}
	return drive, nil
}

// toFAT makes FAT with the same files for such sectors: the start of it, behind which its room must be zero.
func toFAT(drive []byte, sectorSize int, room int64) ([]byte, error) {
	v, err := volume.Open(bytes.NewReader(drive))
	if err != nil {
		return nil, err
	}
	files, err := v.Files(int64(len(drive)))
	if err != nil {
		return nil, err
	}
	const serial = 0x32474643 // any: "CFG2"
	room -= room % int64(sectorSize)
	return volume.FAT{Size: min(room, 1<<30), SectorSize: sectorSize, Label: strings.ToUpper(configDriveLabel), Serial: serial, Files: files}.Head()
}

// MakeConfigDrive makes an ISO 9660 image with the label config-2, with Rock Ridge's names, of files whose names are paths with
// slashes and without a leading one: "openstack/latest/meta_data.json". Their time
// is the start of 1970, so that the same files give the same bytes.
func MakeConfigDrive(files map[string][]byte) ([]byte, error) {
	total := 0
	for _, content := range files {
		if total += len(content); total > configDriveSize {
			return nil, fmt.Errorf("make config drive: files have more than %d bytes", configDriveSize)
		}
	}
	b, err := volume.ISO{Label: configDriveLabel, Time: time.Unix(0, 0), Files: volume.BytesFiles(files)}.Bytes()
	if err != nil {
		return nil, fmt.Errorf("make config drive: %w", err)
	}
	return b, nil
}
