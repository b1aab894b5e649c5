// SPDX-License-Identifier: Apache-2.0

package generic

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/inspect/inspecttest"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
	"github.com/ironhand/ironhand/stream/streamtest"
)

const mib = 1 << 20

// The recorded machine has /dev/sda with 10 GiB, /dev/vda with 2 GiB, serial root-disk, and /dev/vdb with 8 GiB, which is read-only.
func machine(t *testing.T) fstest.MapFS {
	return inspecttest.Machine(t, "../../inspect/testdata/virtio.txt")
}

// diskImage is an image of 4 MiB with an MBR, the disk identifier 0x1234abcd and one partition.
func diskImage() []byte {
	b := make([]byte, 4*mib)
	for i := mib; i < 3*mib; i++ {
		b[i] = byte(i ^ i>>8)
	}
	binary.LittleEndian.PutUint32(b[440:], 0x1234abcd)
	b[446+4] = 0x83
	binary.LittleEndian.PutUint32(b[446+8:], 2048)
	binary.LittleEndian.PutUint32(b[446+12:], 4096)
	b[510], b[511] = 0x55, 0xaa
	return b
}

func md5Of(b []byte) string {
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

// bench is a machine of fakes on which a step is run, and a server with its image.
type bench struct {
	host    steps.Host
	machine fstest.MapFS
	server  *streamtest.Server
	url     string
	disk    *streamtest.Disk
	opened  []string
	said    []string
	told    []any

	properties map[string]json.RawMessage // of the node, beside its hints
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{server: &streamtest.Server{Content: diskImage(), ETag: `"1"`}, disk: streamtest.NewDisk(72*mib, 512), machine: machine(t)}
	s := httptest.NewServer(b.server)
	t.Cleanup(s.Close)
	b.url = s.URL + "/debian.img"
	b.host = steps.Host{
		Machine: inspect.Machine{FS: b.machine},
		Open: func(path string) (steps.Disk, error) {
			b.opened = append(b.opened, path)
			return b.disk, nil
		},
		Transport: &http.Transport{DisableCompression: true},
		Log:       slog.New(slog.DiscardHandler),
		Say:       func(format string, args ...any) { b.said = append(b.said, fmt.Sprintf(format, args...)) },
		Progress:  func(v any) { b.told = append(b.told, v) },
		Download:  steps.Download{Stall: 5 * time.Second, Budget: 200 * time.Millisecond},
		ReadBack:  stream.ReadBackSample,
	}
	return b
}

// swap has a file of the machine change just before a disk is opened.
func (b *bench) swap(file, content string) {
	open := b.host.Open
	b.host.Open = func(path string) (steps.Disk, error) {
		for name, f := range b.machine {
			if strings.HasSuffix(name, file) {
				f.Data = []byte(content)
			}
		}
		return open(path)
	}
}

// run runs write_image for a node with these hints.
func (b *bench) run(t *testing.T, hints string, changes change, args change) (any, error) {
	t.Helper()
	sum := sha256.Sum256(b.server.Content)
	all := change{"urls": []string{b.url}, "os_hash_value": hex.EncodeToString(sum[:])}
	for k, v := range changes {
		all[k] = v
	}
	params := change{"image_info": infoWith(t, all)}
	for k, v := range args {
		params[k] = v
	}
	raw, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	inspecttest.Resize(b.machine, b.disk.Size(), b.disk.Sector)
	node := steps.Node{UUID: "n1", Properties: map[string]json.RawMessage{"root_device": json.RawMessage(hints)}}
	maps.Copy(node.Properties, b.properties)
	return writeImage(t.Context(), b.host, steps.Job{Node: node, Args: raw})
}

// untouched tells whether the disk is full of old data as in the beginning.
func (b *bench) untouched() bool {
	return bytes.Count(b.disk.Bytes, []byte{streamtest.Old}) == len(b.disk.Bytes)
}

const rootDiskHint = `{"serial": "root-disk"}`

func TestWriteImage(t *testing.T) {
	iso, err := image.MakeConfigDrive(map[string][]byte{"openstack/latest/meta_data.json": []byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	other, err := image.MakeConfigDrive(map[string][]byte{"openstack/latest/meta_data.json": []byte("second")})
	if err != nil {
		t.Fatal(err)
	}
	drive, otherDrive := image.EncodeConfigDrive(iso), image.EncodeConfigDrive(other)
	tests := []struct {
		name    string
		hints   string
		changes change
		args    change
		setUp   func(*bench)
		disk    string
		also    string // in the result
		drive   string // what it holds
		asked   string // of the server
	}{
		{"plain", rootDiskHint, nil, nil, nil, "/dev/vda", "", "", ""},
		{"two disks fit", `{"size": "< 1"}`, nil, nil, nil, "/dev/sda", "; the hints fit /dev/vda too: the first in the list is taken", "", ""},
		{"config drive", rootDiskHint, nil, change{"configdrive": drive}, nil, "/dev/vda", "", "first", ""},
		{"config drive in the image's description", rootDiskHint, change{"configdrive": drive}, nil, nil, "/dev/vda", "", "first", ""},
		{"config drive of the command over that", rootDiskHint, change{"configdrive": otherDrive}, change{"configdrive": drive}, nil, "/dev/vda", "", "first", ""},
		{"config drive that is null", rootDiskHint, nil, change{"configdrive": nil}, nil, "/dev/vda", "", "", ""},
		{"with a password", rootDiskHint, change{"image_server_auth_strategy": "http_basic", "image_server_user": "u", "image_server_password": "hush-hush"}, nil, nil,
			"/dev/vda", "", "", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("u:hush-hush"))},
		{"MD5 where it is allowed", rootDiskHint, change{"os_hash_algo": nil, "os_hash_value": nil, "checksum": md5Of(diskImage())}, nil, nil, "/dev/vda", "", "", ""},
		{"connection cut", rootDiskHint, nil, nil, func(b *bench) { b.server.Faults = []streamtest.Fault{{Cut: 2 * mib}} }, "/dev/vda", "", "", `- If-Range: "1"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			if test.setUp != nil {
				test.setUp(b)
			}
			result, err := b.run(t, test.hints, test.changes, test.args)
			if err != nil {
				t.Fatalf("writeImage() = %v", err)
			}
			want := steps.Deployed{Text: "image (debian.img) written to device " + test.disk + " root_uuid=0x1234abcd" + test.also,
				Disk: test.disk, UUIDs: map[string]any{"root uuid": "0x1234abcd"}}
			if fmt.Sprint(result) != fmt.Sprint(want) {
				t.Errorf("writeImage() = %v, want %v", result, want)
			}
			if fmt.Sprint(b.opened) != "["+test.disk+"]" {
				t.Errorf("opened %v, want %s", b.opened, test.disk)
			}
			if !bytes.Equal(b.disk.Bytes[mib:4*mib], b.server.Content[mib:]) {
				t.Error("the image is not on the disk")
			}
			for content, there := range map[string]bool{"first": test.drive == "first", "second": false} {
				if bytes.Contains(b.disk.Bytes[4*mib:], []byte(content)) != there {
					t.Errorf("a config drive with %q on the disk: %v, want %v", content, !there, there)
				}
			}
			said := strings.Join(b.said, "\n")
			if !strings.Contains(said, "writing "+b.url+" to "+test.disk) || !strings.Contains(said, test.also) || !strings.Contains(said, "read back and right") {
				t.Errorf("said:\n%s", said)
			}
			if len(b.told) == 0 {
				t.Error("no progress was told")
			}
			if got := strings.Join(b.server.Requests(), "\n"); !strings.Contains(got, test.asked) {
				t.Errorf("requests:\n%s\nwant %q among them", got, test.asked)
			}
			if strings.Contains(said+fmt.Sprint(result, b.told), "hush") {
				t.Error("a password was shown")
			}
		})
	}
}

// A config drive is fetched with the image's password from the image's server, and without it from any other.
func TestWriteImageFetchesConfigDrive(t *testing.T) {
	iso, err := image.MakeConfigDrive(map[string][]byte{"openstack/latest/meta_data.json": []byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		other bool
		want  string
	}{
		{"of the image's server", false, "Basic dTpodXNoLWh1c2g="},
		{"of another server", true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			asked := []string(nil)
			drive := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.Header.Get("Authorization"))
				if len(asked) == 1 { // it is asked again
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				fmt.Fprint(w, image.EncodeConfigDrive(iso))
			})
			images, others := http.NewServeMux(), http.NewServeMux()
			images.Handle("/debian.img", b.server)
			images.Handle("/drive", drive)
			others.Handle("/drive", drive)
			server, other := httptest.NewServer(images), httptest.NewServer(others)
			defer server.Close()
			defer other.Close()
			b.url = server.URL + "/debian.img"
			b.host.Download.Budget = 5 * time.Second
			at := server.URL
			if test.other {
				at = other.URL
			}
			if _, err := b.run(t, rootDiskHint, change{"image_server_auth_strategy": "http_basic", "image_server_user": "u", "image_server_password": "hush-hush"}, change{"configdrive": at + "/drive"}); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprintf("%q", asked) != fmt.Sprintf("%q", []string{test.want, test.want}) {
				t.Errorf("asked with %q, want twice %q", asked, test.want)
			}
			if !bytes.Contains(b.disk.Bytes[4*mib:], []byte("first")) {
				t.Error("the config drive is not on the disk")
			}
		})
	}
}

func TestWriteImageFails(t *testing.T) {
	inUse := errors.New("in use by /dev/md0")
	tests := []struct {
		name    string
		hints   string
		changes change
		args    change
		setUp   func(*bench)
		is      error
		want    string
		touched bool
	}{
		{"arguments are no object", rootDiskHint, nil, change{"image_info": "x"}, nil, steps.ErrArgs, "image_info: json", false},
		{"vmdk", rootDiskHint, change{"disk_format": "vmdk"}, nil, nil, steps.ErrArgs, "qemu-img convert -O qcow2", false},
		{"not what it is said to be", rootDiskHint, change{"disk_format": "qcow2"}, nil, nil, stream.ErrFormat, "image must be qcow2, and its bytes are raw", false},
		{"no digest", rootDiskHint, change{"os_hash_algo": nil, "os_hash_value": nil}, nil, nil, steps.ErrArgs, "an image without a digest is not written", false},
		{"MD5 where it is not allowed", rootDiskHint, change{"os_hash_algo": "md5", "os_hash_value": strings.Repeat("0", 32)}, nil,
			func(b *bench) { b.host.Download.RefuseMD5 = true }, steps.ErrArgs, "the conductor does not allow MD5", false},
		{"SHA-1 where MD5 is not allowed", rootDiskHint, change{"os_hash_algo": "sha1", "os_hash_value": strings.Repeat("0", 40)}, nil,
			func(b *bench) { b.host.Download.RefuseMD5 = true }, steps.ErrArgs, "nor with it SHA-1", false},
		{"checksum is MD5 where it is not allowed", rootDiskHint, change{"os_hash_algo": nil, "os_hash_value": nil, "checksum": strings.Repeat("0", 32)}, nil,
			func(b *bench) { b.host.Download.RefuseMD5 = true }, steps.ErrArgs, "the conductor does not allow MD5", false},
		{"config drive is garbage", rootDiskHint, nil, change{"configdrive": "hush-hush!"}, nil, image.ErrConfigDrive, "config drive for node n1: ", false},
		{"no disk fits", `{"serial": "gone"}`, nil, nil, nil, inspect.ErrNoDisk, `wanted "gone"`, false},
		{"hints make no sense", `{"colour": "red"}`, nil, nil, nil, inspect.ErrHints, "colour", false},
		{"disk is in use", rootDiskHint, nil, nil, func(b *bench) { b.host.Open = func(string) (steps.Disk, error) { return nil, inUse } }, inUse, "in use by /dev/md0", false},
		{"wrong digest", rootDiskHint, change{"os_hash_value": strings.Repeat("0", 64)}, nil, nil, stream.ErrDigest, "write image debian.img to /dev/vda: ", true},
		{"not there", rootDiskHint, nil, nil, func(b *bench) { b.server.Always.Status = 404 }, nil, "404 Not Found", false},
		{"disk breaks", rootDiskHint, nil, nil, func(b *bench) { b.disk.FailWriteAt = 2 * mib }, nil, "input/output error", true},
		{"disk lies", rootDiskHint, nil, nil, func(b *bench) { b.disk.Flip = 100 }, stream.ErrReadBack, "", true},
		{"no end", rootDiskHint, nil, nil, func(b *bench) {
			b.server.Always.Hang = 2 * mib
			b.host.Download.Limit = 3 * time.Second
		}, nil, "the download takes longer than the 3s allowed", true},
		{"another disk has its name", rootDiskHint, nil, nil, func(b *bench) { b.swap("virtio1/block/vda/serial", "another") }, nil,
			`/dev/vda is another disk than the one that was chosen: its serial was "root-disk", is "another"`, false},
		{"it has another size", rootDiskHint, nil, nil, func(b *bench) { b.swap("virtio1/block/vda/size", "2048") }, nil,
			`its size was "75497472", is "1048576"`, false},
		{"it has vanished", rootDiskHint, nil, nil, func(b *bench) { b.swap("virtio1/block/vda/size", "0") }, nil, "/dev/vda is gone since it was chosen", false},
		{"what is open has another size", rootDiskHint, nil, nil, func(b *bench) {
			open := b.host.Open
			b.host.Open = func(path string) (steps.Disk, error) {
				b.disk.Bytes = b.disk.Bytes[:70*mib]
				return open(path)
			}
		}, nil, `its size, open, was "75497472", is "73400320"`, false},
		{"what is open has other sectors", rootDiskHint, nil, nil, func(b *bench) {
			open := b.host.Open
			b.host.Open = func(path string) (steps.Disk, error) { b.disk.Sector = 4096; return open(path) }
		}, nil, `its sector size was "512", is "4096"`, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			if test.setUp != nil {
				test.setUp(b)
			}
			result, err := b.run(t, test.hints, test.changes, test.args)
			if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("writeImage() = %v, %v, want %v with %q", result, err, test.is, test.want)
			}
			if strings.Contains(err.Error()+strings.Join(b.said, "\n"), "hush") {
				t.Errorf("a secret was shown: %v", err)
			}
			if !test.touched && !b.untouched() {
				t.Error("the disk was touched")
			}
			if errors.Is(err, steps.ErrArgs) && b.opened != nil {
				t.Error("a disk was opened")
			}
			if test.touched && !bytes.Equal(b.disk.Bytes[:mib], make([]byte, mib)) {
				t.Error("the start of the disk is not zero")
			}
		})
	}
}

// By hand it is asked for, when the disk is known, and a no leaves it as it was.
func TestWriteImageAsks(t *testing.T) {
	b := newBench(t)
	no := errors.New("no")
	var asked string
	b.host.Confirm = func(_ context.Context, plan string) error { asked = plan; return no }
	_, err := b.run(t, rootDiskHint, nil, nil)
	if err != no || !b.untouched() || b.opened != nil || !strings.Contains(asked, " to /dev/") || !strings.Contains(asked, "serial root-disk") || !slices.Contains(b.said, asked) {
		t.Errorf("error %v, untouched %v, asked %q, said %q", err, b.untouched(), asked, b.said)
	}
	for _, s := range (Manager{}).Steps() {
		if s.Name == "write_image" && !s.Asks {
			t.Error("write_image does not say that it asks")
		}
	}
}

// The digest may be in a file beside the image, which is fetched as the image is, and must be beside it in spirit, too.
func TestWriteImageChecksumFile(t *testing.T) {
	sum := sha256.Sum256(diskImage())
	right := hex.EncodeToString(sum[:])
	noSum := change{"os_hash_algo": nil, "os_hash_value": nil}
	tests := []struct {
		name, file   string
		auth, beside bool   // with a password, and from the image's server: no other is given it
		md5          bool   // is refused
		algorithm    string // is asked for, by os_hash_algo
		want         string
	}{
		{name: "the conductor's algorithm", file: strings.Repeat("0", 128) + "  debian.img\n" + right + "  debian.img\n", algorithm: "sha256"},
		{name: "another algorithm than the conductor's", file: right + "  debian.img\n", algorithm: "sha512", want: "with a digest of sha512"},
		{name: "MD5 first where it is not allowed", file: strings.Repeat("0", 32) + "  debian.img\n" + right + "  debian.img\n", md5: true},
		{name: "list", file: strings.Repeat("0", 64) + "  other.img\n" + right + "  debian.img\n"},
		{name: "BSD", file: "SHA256 (debian.img) = " + right + "\n"},
		{name: "alone, with authorization", file: right, auth: true, beside: true},
		{name: "of another server than the one with the password", file: right, auth: true},
		{name: "another image", file: right + "  other.img\n", want: `checksum file does not contain name "debian.img"`},
		{name: "wrong", file: strings.Repeat("0", 64) + "  debian.img\n", want: "digest does not match"},
		{name: "MD5 where it is not allowed", file: strings.Repeat("0", 32) + "  debian.img\n", md5: true, want: "the conductor does not allow MD5"},
		{name: "not there", want: "404 Not Found"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.host.Download.RefuseMD5 = test.md5
			var authorization string
			files := http.NewServeMux()
			files.Handle("/debian.img", b.server)
			files.HandleFunc("/SHA256SUMS", func(w http.ResponseWriter, r *http.Request) {
				authorization = r.Header.Get("Authorization")
				if test.file == "" {
					w.WriteHeader(404)
				}
				w.Write([]byte(test.file)) // the client may be gone
			})
			sums := httptest.NewServer(files)
			defer sums.Close()
			if test.beside {
				b.url = sums.URL + "/debian.img"
			}
			changes := maps.Clone(noSum)
			changes["checksum"] = sums.URL + "/SHA256SUMS?hush"
			if test.algorithm != "" {
				changes = change{"os_hash_algo": test.algorithm, "os_hash_value": changes["checksum"]}
			}
			if test.auth {
				changes["image_server_auth_strategy"], changes["image_server_user"], changes["image_server_password"] = "http_basic", "me", "hush"
			}
			_, err := b.run(t, rootDiskHint, changes, nil)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hush")) {
				t.Errorf("writeImage() = %v, want an error with %q", err, test.want)
			}
			if (test.auth && test.beside) != (authorization != "") {
				t.Errorf("Authorization was %q", authorization)
			}
		})
	}
}

// Where there is a key, only an image with a valid signature beside it is written.
func TestWriteImageSignature(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	sign := func(b []byte) string {
		sum := sha256.Sum256(b)
		s, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(s)
	}
	const minisign = "RWRsM5oL1PKk2WRAm+gTDh+DhRC63OJOJ91OHPzJCTFSt+T6eVBIzc1P\n"
	tests := []struct {
		name, signature string // "" if there is none
		key             string
		partition       bool
		want            string
		touched         bool
	}{
		{name: "right", signature: sign(diskImage()), key: string(public)},
		{name: "of another image", signature: sign([]byte("other")), key: string(public), want: "the image is not the one that was signed", touched: true},
		{name: "of another image, for a partition", signature: sign([]byte("other")), key: string(public), partition: true, want: "the image is not the one that was signed", touched: true},
		{name: "none", key: string(public), want: "debian.img.sig: 404 Not Found"},
		{name: "none, for a partition", key: string(public), partition: true, want: "debian.img.sig: 404 Not Found"},
		{name: "no signature", signature: "<html>", key: string(public), want: "neither one of minisign nor base64"},
		{name: "by another key", signature: sign(diskImage()), key: minisign, want: "debian.img.minisig: 404 Not Found"},
		{name: "without a key none is looked for"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			if test.key != "" {
				b.host.Download.PublicKeys, err = stream.ParsePublicKeys([]byte(test.key))
				if err != nil {
					t.Fatal(err)
				}
			}
			asked := false
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/debian.img" {
					b.server.ServeHTTP(w, r)
					return
				}
				asked = true
				if r.URL.Path != "/debian.img.sig" || test.signature == "" {
					http.NotFound(w, r)
					return
				}
				w.Write([]byte(test.signature)) // the client may be gone
			}))
			defer server.Close()
			changes := change{"urls": []string{server.URL + "/debian.img"}}
			if test.partition {
				b.properties = map[string]json.RawMessage{"capabilities": json.RawMessage(`"boot_mode:bios"`)}
				b.server.Content = make([]byte, 8*mib) // of an ext4
				binary.LittleEndian.PutUint32(b.server.Content[1024+4:], 2048)
				binary.LittleEndian.PutUint32(b.server.Content[1024+24:], 2)
				binary.LittleEndian.PutUint16(b.server.Content[1024+56:], 0xef53)
				binary.LittleEndian.PutUint32(b.server.Content[1024+96:], 0x40)
				maps.Copy(changes, change{"image_type": "partition", "root_mb": 20, "swap_mb": 0, "ephemeral_mb": 0, "ephemeral_format": nil, "preserve_ephemeral": false})
			}
			_, err := b.run(t, rootDiskHint, changes, nil)
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, stream.ErrSignature) || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("writeImage() = %v, want an ErrSignature with %q", err, test.want)
			}
			if asked != (test.key != "") {
				t.Errorf("asked for a signature: %v", asked)
			}
			if !test.touched && err != nil && (!b.untouched() || b.opened != nil) {
				t.Error("the disk was touched")
			}
			zero := make([]byte, mib)
			if test.touched && (!bytes.Equal(b.disk.Bytes[:mib], zero) || !bytes.Equal(b.disk.Bytes[len(b.disk.Bytes)-mib:], zero)) {
				t.Error("the ends of the disk are not zero")
			}
		})
	}
}

// The image and its checksum file come through the proxy that the conductor names.
func TestWriteImageProxy(t *testing.T) {
	b := newBench(t)
	sum := sha256.Sum256(b.server.Content)
	var mu sync.Mutex
	asked := map[string]bool{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.String()] = true
		mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "SUMS") {
			fmt.Fprintf(w, "%x  debian.img\n", sum)
			return
		}
		b.server.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	_, err := b.run(t, rootDiskHint, change{"urls": []string{"http://image.example/debian.img"}, "os_hash_algo": nil, "os_hash_value": nil,
		"checksum": "http://image.example/SUMS", "proxies": map[string]string{"http": strings.TrimPrefix(proxy.URL, "http://")}, "no_proxy": "other.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !asked["http://image.example/SUMS"] || !asked["http://image.example/debian.img"] {
		t.Errorf("the proxy was asked for %v", asked)
	}
}

// lateFS is a machine whose disks appear some time after the start.
type lateFS struct {
	fs.ReadLinkFS
	when time.Time
}

func (l lateFS) Open(name string) (fs.File, error) {
	if strings.HasPrefix(name, "sys/block") && time.Now().Before(l.when) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return l.ReadLinkFS.Open(name)
}

func TestRootDiskWaits(t *testing.T) {
	tests := []struct {
		name     string
		after    time.Duration // the disk appears
		attempts int
		limit    time.Duration // of the context
		took     time.Duration
		want     error
	}{
		{"there", 0, 10, 0, 0, nil},
		{"late", 5 * time.Second, 10, 0, 6 * time.Second, nil},
		{"too late", 10 * time.Second, 3, 0, 6 * time.Second, inspect.ErrNoDisk},
		{"one look", time.Second, 1, 0, 0, inspect.ErrNoDisk},
		{"not to wait", time.Second, 0, 0, 0, inspect.ErrNoDisk},
		{"the end of the command", time.Hour, 10, 4 * time.Second, 4 * time.Second, context.DeadlineExceeded},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			recorded := machine(t)
			synctest.Test(t, func(t *testing.T) {
				ctx, start, said := t.Context(), time.Now(), 0
				if test.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.limit)
					defer cancel()
				}
				h := steps.Host{
					Machine: inspect.Machine{FS: lateFS{recorded, start.Add(test.after)}}, DiskAttempts: test.attempts, DiskDelay: 3 * time.Second,
					Say: func(string, ...any) { said++ },
				}
				choice, err := steps.AwaitRootDisk(ctx, h, steps.Node{Properties: map[string]json.RawMessage{"root_device": json.RawMessage(rootDiskHint)}})
				if !errors.Is(err, test.want) || err == nil && choice.Disk.Name != "/dev/vda" {
					t.Errorf("steps.AwaitRootDisk() = %s, %v, want %v", choice.Disk.Name, err, test.want)
				}
				if took := time.Since(start); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				if waited := test.took > 0; waited != (said == 1) {
					t.Errorf("said %d times that it waits", said)
				}
			})
		})
	}
}

func TestKexec(t *testing.T) {
	locked := errors.New("the kernel is locked down")
	tests := []struct {
		name     string
		deployed *steps.Deployed
		fail     error
		want     string
		wantErr  string
	}{
		{"loaded", &steps.Deployed{Disk: "/dev/sda"}, nil, "loaded Debian on /dev/sda", ""},
		{"nothing deployed", nil, nil, "", "no image was written since this machine was started"},
		{"refused", &steps.Deployed{Disk: "/dev/sda"}, locked, "", "load the kernel on /dev/sda: the kernel is locked down"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			said := ""
			h := steps.Host{
				Say: func(format string, args ...any) { said = fmt.Sprintf(format, args...) },
				LoadKernel: func(_ context.Context, disk string) (string, error) {
					return "Debian on " + disk, test.fail
				},
			}
			got, err := kexec(t.Context(), h, steps.Job{Deployed: test.deployed})
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) || said != "" {
					t.Errorf("kexec() = %v, %v, want %q; said %q", got, err, test.wantErr, said)
				}
				return
			}
			if err != nil || got != test.want || said != test.want {
				t.Errorf("kexec() = %v, %v, said %q, want %q", got, err, said, test.want)
			}
		})
	}
}

// Nodes' records and Ironic's own code know these names.
func TestManager(t *testing.T) {
	set, err := steps.NewSet(t.Context(), steps.Host{}, []steps.Manager{Manager{}})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(set.Versions()); got != "map[generic_hardware_manager:ironhand.1]" {
		t.Errorf("versions = %s", got)
	}
	for phase, want := range map[steps.Phase]string{
		steps.Clean: "deploy.burnin_cpu=0 deploy.burnin_disk=0 deploy.burnin_gpu=0 deploy.burnin_memory=0 deploy.burnin_network=0 deploy.clean_uefi_nvram=0 raid.create_configuration=0 deploy.create_volumes=0 raid.delete_configuration=0 deploy.delete_volumes=0 deploy.erase_devices=10 deploy.erase_devices_express=0 " +
			"deploy.erase_devices_metadata=99 deploy.erase_pstore=0 ",
		steps.Deploy:  "raid.apply_configuration=0 deploy.clean_uefi_nvram=0 deploy.create_volumes=0 deploy.delete_volumes=0 deploy.erase_devices_metadata=0 deploy.inject_files=0 deploy.kexec=0 deploy.write_image=0 ",
		steps.Service: "raid.apply_configuration=0 deploy.burnin_cpu=0 deploy.burnin_gpu=0 deploy.burnin_memory=0 deploy.burnin_network=0 raid.create_configuration=0 deploy.create_volumes=0 raid.delete_configuration=0 deploy.delete_volumes=0 deploy.inject_files=0 deploy.write_image=0 "} {
		got := ""
		for _, s := range set.List(phase)["GenericHardwareManager"] {
			got += fmt.Sprintf("%s.%s=%d ", s.Interface, s.Name, s.Priority[phase])
			if erases := strings.HasPrefix(s.Name, "erase_devices"); erases && !(s.Asks && s.Deploys) || phase == steps.Clean && (!s.Abortable || s.Reboot) {
				t.Errorf("%s: asks %v, forgets what was deployed %v, abortable %v, reboots %v", s.Name, s.Asks, s.Deploys, s.Abortable, s.Reboot)
			}
		}
		if got != want {
			t.Errorf("steps of %s = %s, want %s", phase, got, want)
		}
	}
}
