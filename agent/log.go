// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/ironhand/ironhand/initramfs/boot"
	"github.com/ironhand/ironhand/steps"
)

// Limits of the logs that a conductor collects, in bytes. It keeps them in one JSON document, and stores them in a file.
const (
	maxLogFile = 2 << 20 // of each file the end is taken
	maxLogs    = 8 << 20 // packed; what comes after is left out, and is named
)

// logCommands collect logs.
func (a *agent) logCommands() []Command {
	return []Command{{Name: "log.collect_system_logs", Run: a.collectLogs}}
}

// collectLogs packs what helps to find out what happened into a tar.gz. Source: IPA ironic_python_agent/extensions/log.py.
func (a *agent) collectLogs(ctx context.Context, _ json.RawMessage) (any, error) {
	var packed bytes.Buffer
	if err := a.packLogs(ctx, &packed); err != nil {
		return nil, fmt.Errorf("collect logs: %w", err)
	}
	return map[string]string{"system_logs": base64.StdEncoding.EncodeToString(packed.Bytes())}, nil
}

// machineFiles are files of the kernel, and of process 1, that go into the logs as they are.
func machineFiles() []string {
	log := strings.TrimPrefix(boot.LogFile, "/")
	files := []string{log, log + ".1"}
	for _, name := range []string{"cmdline", "meminfo", "cpuinfo", "mounts", "partitions", "diskstats", "swaps", "mdstat", "modules", "interrupts", "version", "uptime",
		"net/dev", "net/arp", "net/route", "net/ipv6_route", "net/if_inet6", "net/bonding/bond0"} {
		files = append(files, "proc/"+name)
	}
	for _, name := range []string{"sys_vendor", "product_name", "product_serial", "product_uuid", "board_name", "bios_vendor", "bios_version", "bios_date", "chassis_serial"} {
		files = append(files, "sys/class/dmi/id/"+name)
	}
	return append(files, "etc/resolv.conf", "sys/firmware/dmi/tables/DMI", "sys/firmware/dmi/tables/smbios_entry_point")
}

// collectTime is for all logs, readTime for one of them: the conductor waits for a minute.
const collectTime, readTime = 30 * time.Second, 5 * time.Second

// packLogs writes the archive. What cannot be collected is named in its file "errors".
func (a *agent) packLogs(ctx context.Context, to *bytes.Buffer) error {
	ctx, cancel := context.WithTimeout(ctx, collectTime)
	defer cancel()
	z := gzip.NewWriter(to)
	t := tar.NewWriter(z)
	var problems []string
	pack := func(name string, b []byte) error {
		b = a.withoutSecrets(b[max(0, len(b)-maxLogFile):])
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(b)), ModTime: time.Now(), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := t.Write(b)
		return err
	}
	add := func(name string, b []byte, err error) error {
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) { // not every machine has everything
				problems = append(problems, fmt.Sprintf("%s: %v", name, err))
			}
			return nil
		}
		if to.Len() > maxLogs {
			problems = append(problems, name+": left out, the archive is large enough")
			return nil
		}
		return pack(name, b)
	}
	marshal := func(v any, err error) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(v, "", "  ")
	}

	var timeline bytes.Buffer
	for _, e := range a.console.Events() {
		fmt.Fprintln(&timeline, e)
	}
	var settings bytes.Buffer
	for _, o := range a.config.Origins {
		fmt.Fprintln(&settings, o)
	}
	kernel, kernelErr := within(ctx, a.sys.KernelLog)
	inventory, inventoryErr := marshal(a.inventory, nil)
	disks, disksErr := within(ctx, func() ([]byte, error) { return marshal(a.sys.Machine.Disks(ctx)) })
	health, healthErr := within(ctx, func() ([]byte, error) { return marshal(a.sys.Machine.Health(ctx)) })
	network, networkErr := within(ctx, func() ([]byte, error) { return a.networkLog(ctx) })
	errs := []error{
		add("timeline", timeline.Bytes(), nil),
		add("settings", settings.Bytes(), nil),
		add("kernel", kernel, kernelErr),
		add("inventory.json", inventory, inventoryErr),
		add("disks.json", disks, disksErr),
		add("health.json", health, healthErr),
		add("network.json", network, networkErr),
	}
	reports := os.DirFS(a.state.reportDir())
	errs = append(errs, fs.WalkDir(reports, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return add(path.Join("reports", name), nil, err)
		}
		b, err := tail(reports, name, maxLogFile+1)
		if len(b) > maxLogFile {
			err = fmt.Errorf("left out, it has more than %d bytes", maxLogFile) // a part of a page is of no use
		}
		return add(path.Join("reports", name), b, err)
	}))
	for _, name := range machineFiles() {
		if ctx.Err() != nil {
			break
		}
		b, err := within(ctx, func() ([]byte, error) { return tail(a.sys.Root, name, maxLogFile) })
		errs = append(errs, add(path.Join("machine", name), b, err))
	}
	if ctx.Err() != nil {
		problems = append(problems, "the rest: "+ctx.Err().Error())
	}
	if len(problems) > 0 {
		errs = append(errs, pack("errors", []byte(strings.Join(problems, "\n")+"\n")))
	}
	return errors.Join(append(errs, t.Close(), z.Close())...)
}

func (a *agent) networkLog(ctx context.Context) ([]byte, error) {
	k, err := a.network()
	if err != nil {
		return nil, err
	}
	state, err := k.State(ctx)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(state, "", "  ")
}

// within waits for a read for readTime. The kernel answers some files only when a disk or a device does, and such a read cannot be interrupted: it
// is left to itself.
func within(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	return steps.Within(ctx, readTime, errors.New("it cannot be read in time"), func(context.Context) ([]byte, error) { return read() })
}

// tail reads the last bytes of a file, however long it is.
func tail(root fs.FS, name string, most int) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if s, ok := f.(io.Seeker); ok && info.Mode().IsRegular() && info.Size() > int64(most) {
		if _, err := s.Seek(-int64(most), io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, int64(most)))
}

// secretValues are what is masked wherever it is printed: our own log masks it, the kernel's command line and what others log does not. Rather too much
// than too little: what cannot be told apart from a secret goes as well.
var secretValues = []struct {
	find *regexp.Regexp
	by   string
}{
	// HTTP credentials have blanks in them.
	{regexp.MustCompile(`(?i)(authorization(?:\\?["'])?[ \t]*[=:])[^\n]+`), "${1} ***"},
	{regexp.MustCompile(`(?i)(\bbearer[ \t]+)\S+`), "${1}***"},
	// "name=a value", as the kernel quotes parameters; then name=value, with the name or the value in quotes, which may be escaped.
	{regexp.MustCompile(`(?i)("[^"\s=]*` + secretName + `=)[^"\n]+`), "${1}***"},
	{regexp.MustCompile(`(?i)(` + secretName + `(?:\\?["'])?\s*[=:][ \t]*)(?:"(?:[^"\\\n]|\\.)*"?|\\"(?:\\\\\\"|[^"\n])*"?|'[^'\n]*'?|\S+)`), "${1}***"},
	// Parts of URLs.
	{passwords, "//***@"},
	{queries, "${1}***"},
}

// secretName is the end of a name whose value is a secret.
const secretName = `(?:token|password|passwd|passphrase|pwd|psk|secret|secret[-_]?key|temp_url_sig|signature)`

// withoutSecrets masks what nobody shall read.
func (a *agent) withoutSecrets(b []byte) []byte {
	for _, s := range []string{a.token.Reveal(), a.config.Token.Reveal(), a.config.ImagePassword.Reveal()} {
		if s != "" {
			b = bytes.ReplaceAll(b, []byte(s), []byte("***"))
		}
	}
	for _, v := range secretValues {
		b = v.find.ReplaceAll(b, []byte(v.by))
	}
	return b
}
