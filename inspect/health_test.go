// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/ironhand/ironhand/inspect/inspecttest"
)

// smartLog makes an NVMe health log: 40 °C, 3 % used, 100 % spare, 1234 hours, no errors.
func smartLog(change func(b []byte)) []byte {
	b := make([]byte, 512)
	binary.LittleEndian.PutUint16(b[1:], 313)
	b[3], b[4], b[5] = 100, 10, 3
	b[128], b[129] = 0xd2, 0x04
	if change != nil {
		change(b)
	}
	return b
}

// smartAttribute is one of SMART: number, flags, value, raw.
type smartAttribute struct {
	id, flags, value byte
	raw              uint32
}

// smartData makes SMART data with its checksum.
func smartData(list ...smartAttribute) []byte {
	b := make([]byte, 512)
	for i, a := range list {
		at := b[2+12*i:]
		at[0], at[1], at[3] = a.id, a.flags, a.value
		binary.LittleEndian.PutUint32(at[5:], a.raw)
	}
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[511] = -sum
	return b
}

func smartThresholds(pairs ...byte) []byte {
	b := make([]byte, 512)
	for i := 0; i+1 < len(pairs); i += 2 {
		copy(b[2+6*i:], pairs[i:i+2])
	}
	return b
}

// wrong breaks the checksum.
func wrong(b []byte) []byte { b[0]++; return b }

func TestHealth(t *testing.T) {
	for _, tt := range []struct {
		name, disk string
		pages      map[string][]byte
		want       string // JSON without nulls; empty: the disk cannot say
		err        string
	}{
		{"NVMe", "nvme0n1", map[string][]byte{pageNVMeHealth: smartLog(nil)},
			"good [] 40°C 1234h used 3 spare 100 lost 0", ""},
		{"NVMe is read-only", "nvme0n1", map[string][]byte{pageNVMeHealth: smartLog(func(b []byte) { b[0] = 8 })},
			"failing [the disk is read-only] 40°C 1234h used 3 spare 100 lost 0", ""},
		{"NVMe is worn out", "nvme0n1", map[string][]byte{pageNVMeHealth: smartLog(func(b []byte) { b[0], b[3], b[5], b[160] = 1, 2, 130, 7 })},
			"failing [spare capacity is below its limit 130 % of its writes are used up 7 media errors] 40°C 1234h used 130 spare 2 lost 7", ""},
		{"NVMe is hot", "nvme0n1", map[string][]byte{pageNVMeHealth: smartLog(nil), pageNVMeIdentify: func() []byte {
			b := make([]byte, 4096)
			binary.LittleEndian.PutUint16(b[266:], 310)
			binary.LittleEndian.PutUint16(b[268:], 350)
			return b
		}()}, "good [40 °C is too warm] 40°C 1234h used 3 spare 100 lost 0", ""},
		{"NVMe with numbers beyond reason", "nvme0n1", map[string][]byte{pageNVMeHealth: smartLog(func(b []byte) { b[143] = 0xff })},
			"good [] 40°C 4611686018427387904h used 3 spare 100 lost 0", ""},
		{"NVMe cut off", "nvme0n1", map[string][]byte{pageNVMeHealth: make([]byte, 100)}, "", "disk nvme0n1: nvme-health has 100 bytes, want 512"},
		{"no answer of NVMe", "nvme0n1", nil, "", ""},
		{"SCSI", "sda", map[string][]byte{
			"scsi-log-0d": []byte("\x0d\x00\x00\x0c\x00\x00\x03\x02\x00\x1f\x00\x01\x03\x02\x00\x44"),
			"scsi-log-2f": []byte("\x2f\x00\x00\x08\x00\x00\x03\x04\x00\x00\x1f\x00"),
			"scsi-log-03": []byte("\x03\x00\x00\x08\x00\x06\x03\x04\x00\x00\x00\x02"),
			"scsi-log-15": []byte("\x15\x00\x00\x08\x00\x00\x03\x04\x00\x01\x51\x80"),
		}, "good [2 errors were not corrected] 31°C 1440h lost 2", ""},
		{"SCSI says it will fail", "sda", map[string][]byte{"scsi-log-2f": []byte("\x2f\x00\x00\x08\x00\x00\x03\x04\x5d\x10\x28\x00")},
			"failing [the disk says that it will fail soon (5Dh/10h)] 40°C", ""},
		{"SCSI SSD", "sda", map[string][]byte{"scsi-log-11": []byte("\x11\x00\x00\x08\x00\x01\x03\x04\x00\x00\x00\x65")}, "good [101 % of its writes are used up] used 101", ""},
		{"SCSI cut off", "sda", map[string][]byte{"scsi-log-0d": []byte("\x0d\x00\x00\x0c\x00\x00\x03\x02\x00\x1f\x00\x01\x03")}, "good [] 31°C", "disk sda: log page 0dh: it is cut off"},
		{"SCSI with another page", "sda", map[string][]byte{"scsi-log-0d": []byte("\x2f\x00\x00\x00")}, "good []", "log page 0dh: it is another page"},
		{"ATA", "ata", map[string][]byte{pageATAData: smartData(smartAttribute{5, 3, 100, 0}, smartAttribute{9, 2, 90, 9000}, smartAttribute{194, 2, 60, 0x002d0023}), pageATAThresholds: smartThresholds(5, 10, 9, 0, 194, 0), pageATAStatus: {0x4f, 0xc2}},
			"good [] 35°C 9000h reallocated 0", ""},
		{"ATA below its limit", "ata", map[string][]byte{pageATAData: smartData(smartAttribute{5, 3, 8, 4000}), pageATAThresholds: smartThresholds(5, 10)},
			"failing [attribute 5 is 8, its limit 10 4000 sectors were reallocated] reallocated 4000", ""},
		{"ATA is old", "ata", map[string][]byte{pageATAData: smartData(smartAttribute{9, 2, 1, 90000}), pageATAThresholds: smartThresholds(9, 2)},
			"good [attribute 9 is 1, its limit 2] 90000h", ""},
		{"ATA cannot read", "ata", map[string][]byte{pageATAData: smartData(smartAttribute{197, 2, 100, 8}, smartAttribute{198, 2, 100, 3})}, "good [8 sectors cannot be read] lost 8", ""},
		{"ATA says it will fail", "ata", map[string][]byte{pageATAData: smartData(), pageATAStatus: {0xf4, 0x2c}}, "failing [the disk says that it will fail soon]", ""},
		{"ATA garbled", "ata", map[string][]byte{pageATAData: wrong(smartData(smartAttribute{5, 3, 100, 0}))}, "", "disk sda: SMART data has a wrong checksum"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := inspecttest.Server()
			if tt.disk == "ata" {
				for name, f := range files {
					if strings.HasSuffix(name, "/0:0:0:0/vendor") {
						f.Data = []byte("ATA     \n")
					}
				}
				tt.disk = "sda"
			}
			for name := range files {
				if strings.HasPrefix(name, "sys/block/") && name != "sys/block/"+tt.disk {
					delete(files, name)
				}
			}
			m := Recorded(files)
			m.Ask = func(_ context.Context, question string) ([]byte, error) {
				page, found := strings.CutPrefix(question, "disk/"+tt.disk+"/")
				if b := tt.pages[page]; found && b != nil {
					return b, nil
				}
				return nil, fs.ErrNotExist
			}
			list, err := m.Health(t.Context())
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			got := ""
			if len(list) > 0 {
				got = short(list[0])
			}
			if got != tt.want {
				t.Errorf("Health = %s, want %s", got, tt.want)
			}
		})
	}
}

// What the disks of a virtual machine have answered.
func TestHealthOfRecording(t *testing.T) {
	list, err := recorded(t, "qemu").Health(t.Context())
	if err != nil {
		t.Error(err)
	}
	var got []string
	for _, h := range list {
		got = append(got, h.Disk+" "+short(h))
	}
	want := "/dev/sdb good [] 31°C 1h reallocated 0\n/dev/nvme0n1 good [] 50°C 0h used 0 spare 0 lost 0"
	if strings.Join(got, "\n") != want {
		t.Errorf("Health = %s\nwant %s", strings.Join(got, "\n"), want)
	}
}

// short is what is known.
func short(h Health) string {
	s := "good "
	if h.Failing {
		s = "failing "
	}
	s += fmt.Sprint(h.Reasons)
	for _, n := range []struct {
		form string
		n    *int64
	}{{" %d°C", h.TemperatureC}, {" %dh", h.PowerOnHours}, {" used %d", h.UsedPercent}, {" spare %d", h.SparePercent}, {" lost %d", h.MediaErrors}, {" reallocated %d", h.Reallocated}} {
		if n.n != nil {
			s += fmt.Sprintf(n.form, *n.n)
		}
	}
	return s
}

// A disk that hangs, or fails, is named, and the others are asked beside it.
func TestHealthHangs(t *testing.T) {
	files := inspecttest.Server()
	synctest.Test(t, func(t *testing.T) {
		until := make(chan struct{})
		m := Recorded(files)
		m.Ask = func(_ context.Context, question string) ([]byte, error) {
			switch {
			case strings.HasPrefix(question, "disk/nvme1n1/"):
				<-until
			case strings.HasPrefix(question, "disk/nvme2n1/"):
				return nil, errors.New("input/output error")
			case strings.HasSuffix(question, pageNVMeHealth):
				time.Sleep(time.Second)
				return smartLog(nil), nil
			}
			return nil, fs.ErrNotExist
		}
		start := time.Now()
		list, err := m.Health(t.Context())
		close(until)
		if took := time.Since(start); took != healthLimit {
			t.Errorf("took %v, want %v", took, healthLimit)
		}
		if len(list) != 2 || err == nil || !strings.Contains(err.Error(), "health of disk nvme1n1: no answer within 10s") || !strings.Contains(err.Error(), "nvme2n1/nvme-health: input/output error") {
			t.Errorf("Health = %v, %v", list, err)
		}
	})
}

func FuzzHealth(f *testing.F) {
	f.Add(smartLog(nil), []byte("\x0d\x00\x00\x0c\x00\x00\x03\x02\x00\x1f\x00\x01\x03\x02\x00\x44"))
	f.Add(smartData(smartAttribute{5, 3, 8, 4000}), []byte("\x2f\x00\x00\x08\x00\x00\x03\x04\x5d\x10\x28\x00"))
	f.Fuzz(func(t *testing.T, block, log []byte) {
		h := Health{Reasons: []string{}}
		if len(block) >= 512 {
			h.parseNVMe(block[:512], parseNVMeIdentify(log))
			_ = h.parseATA(block[:512], block[len(block)-512:])
		}
		for _, page := range []byte{0x02, 0x03, 0x0d, 0x11, 0x15, 0x2f} {
			_ = h.parseSCSI(page, log)
		}
		b, err := json.Marshal(h)
		if err != nil || !utf8.Valid(b) || len(h.Reasons) > 100 {
			t.Errorf("%d reasons, %v", len(h.Reasons), err)
		}
	})
}

func FuzzNVMeIdentify(f *testing.F) {
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := parseNVMeIdentify(b); id.warningK < 0 || id.criticalK < 0 {
			t.Errorf("%+v", id)
		}
	})
}

// A path to an NVMe disk with several is no disk.
func TestHealthHidden(t *testing.T) {
	page := make([]byte, 512)
	page[3] = 100
	files := fstest.MapFS{}
	for _, name := range []string{"nvme0n1", "nvme0c0n1"} {
		files["sys/block/"+name+"/size"] = &fstest.MapFile{Data: []byte("100000\n")}
		files["answers/disk/"+name+"/nvme-health"] = &fstest.MapFile{Data: page}
	}
	files["sys/block/nvme0c0n1/hidden"] = &fstest.MapFile{Data: []byte("1\n")}
	list, err := Recorded(files).Health(t.Context())
	if err != nil || len(list) != 1 || list[0].Disk != "/dev/nvme0n1" {
		t.Errorf("Health = %+v, %v, want /dev/nvme0n1 alone", list, err)
	}
}
