// SPDX-License-Identifier: Apache-2.0

//go:build linux

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ironhand/ironhand/agent/conductor"
	"github.com/ironhand/ironhand/initramfs/vmtest"
)

func TestMain(m *testing.M) { vmtest.Main(m) }

// A bench is an Ironic, one network to which machines are connected, and a server for images.
type bench struct {
	t       testing.TB
	dir     string // everything that Ironic writes is below it
	network *vmtest.Network
	url     string       // of the API
	images  string       // URL of the server for images
	slow    atomic.Int64 // bytes a second that it sends; 0 is no limit

	api, conductor *exec.Cmd
}

var benches atomic.Int32

// need skips the tests unless they are asked for: they take many minutes.
func need(t testing.TB) {
	t.Helper()
	if !strings.Contains(os.Getenv("REQUIRE"), "ironic") {
		t.Skip("needs an Ironic and several minutes; run by make test-ironic, which sets REQUIRE=ironic")
	}
	vmtest.Require(t)
}

// newBench starts an Ironic. Settings are changes of its configuration, "section.option" to value.
func newBench(t testing.TB, settings map[string]string) *bench {
	t.Helper()
	need(t)
	dir, err := os.MkdirTemp("", "ironic") // paths of t.TempDir hold the test's name, with characters that configuration files do not like
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{t: t, dir: dir, network: vmtest.NewNetwork(t, int(benches.Add(1)))}
	host := b.network.Host4.Addr().String()
	b.url = fmt.Sprintf("http://%s:6385", host)
	for _, d := range []string{"http/images", "tftp", "tmp", "images", "master/instance", "master/tftp", "master/iso", "certs", "logs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// The machines are started with the ramdisk directly; Ironic copies these and never looks into them.
	for _, f := range []string{"kernel", "ramdisk"} {
		b.write("http/"+f, []byte("not a real "+f))
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "8088"))
	if err != nil {
		t.Fatal(err)
	}
	b.images = "http://" + listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(b.serve)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	b.must(conductor.WriteCertificates(b.path("tls"), []string{host}))
	b.write("ironic.conf", []byte(b.config(host, settings)))
	b.run("ironic-dbsync", "--config-file", b.path("ironic.conf"), "create_schema")
	b.conductor = b.start("ironic-conductor")
	b.api = b.start("ironic-api")
	t.Cleanup(func() {
		b.stop(b.api)
		b.stop(b.conductor)
		if t.Failed() {
			for _, name := range []string{"ironic-conductor", "ironic-api"} {
				t.Logf("what %s complained of:\n%s", name, b.complaints(name))
			}
		}
	})
	b.wait()
	return b
}

// config is ironic.conf.
func (b *bench) config(host string, changes map[string]string) string {
	all := map[string]string{
		"DEFAULT.auth_strategy":            "noauth",
		"DEFAULT.rpc_transport":            "json-rpc", // instead of RabbitMQ
		"DEFAULT.host":                     host,       // the API calls the conductor by this name
		"DEFAULT.my_ip":                    host,
		"DEFAULT.state_path":               b.dir,
		"DEFAULT.tempdir":                  b.path("tmp"),
		"DEFAULT.debug":                    "true",
		"DEFAULT.hash_ring_reset_interval": "2",
		"DEFAULT.webserver_verify_ca":      b.path("tls/ca.crt"),
		// manual-management takes the ordinary way through the conductor (prepare the ramdisk, install the boot loader, set the boot device)
		// and writes the kernel's parameters; power is a pretence that the tests see and follow.
		"DEFAULT.enabled_hardware_types":        "manual-management",
		"DEFAULT.enabled_power_interfaces":      "fake",
		"DEFAULT.enabled_management_interfaces": "noop",
		"DEFAULT.enabled_boot_interfaces":       "ipxe",
		"DEFAULT.enabled_deploy_interfaces":     "direct",
		"DEFAULT.enabled_network_interfaces":    "noop",
		"DEFAULT.enabled_raid_interfaces":       "agent,no-raid",
		"DEFAULT.enabled_rescue_interfaces":     "agent,no-rescue",
		"DEFAULT.enabled_inspect_interfaces":    "no-inspect",
		"DEFAULT.enabled_console_interfaces":    "no-console",
		"DEFAULT.enabled_storage_interfaces":    "noop",
		"DEFAULT.enabled_vendor_interfaces":     "no-vendor",
		"DEFAULT.enabled_bios_interfaces":       "no-bios",
		"DEFAULT.default_deploy_interface":      "direct",
		"DEFAULT.default_network_interface":     "noop",
		"DEFAULT.default_raid_interface":        "agent",
		"DEFAULT.default_rescue_interface":      "agent",
		"DEFAULT.default_inspect_interface":     "no-inspect",
		"DEFAULT.rootwrap_config":               b.path("rootwrap.conf"),

		"api.host_ip":                   host,
		"api.port":                      "6385",
		"api.api_workers":               "1",
		"api.public_endpoint":           b.url,
		"api.ramdisk_heartbeat_timeout": "30",

		"json_rpc.auth_strategy": "noauth",
		"json_rpc.host_ip":       host,
		"json_rpc.port":          "8089",

		"database.connection":               "sqlite:///" + b.path("ironic.sqlite"),
		"dhcp.dhcp_provider":                "none",
		"service_catalog.auth_type":         "none",
		"service_catalog.endpoint_override": b.url,

		"conductor.automated_clean":                "true",
		"conductor.sync_power_state_interval":      "-1",
		"conductor.sync_local_state_interval":      "-1",
		"conductor.check_provision_state_interval": "10",
		"conductor.deploy_callback_timeout":        "600",
		"conductor.clean_callback_timeout":         "600",
		"conductor.rescue_callback_timeout":        "600",
		"conductor.file_url_allowed_paths":         b.path("http") + "," + b.path("images"),
		"conductor.deploy_kernel":                  "file://" + b.path("http/kernel"),
		"conductor.deploy_ramdisk":                 "file://" + b.path("http/ramdisk"),
		"conductor.rescue_kernel":                  "file://" + b.path("http/kernel"),
		"conductor.rescue_ramdisk":                 "file://" + b.path("http/ramdisk"),

		"deploy.http_url":                        b.images,
		"deploy.http_root":                       b.path("http"),
		"deploy.erase_devices_priority":          "0",
		"deploy.erase_devices_metadata_priority": "10",
		"deploy.iso_master_path":                 b.path("master/iso"),
		"deploy.default_boot_mode":               "uefi",

		"agent.require_tls":            "true",
		"agent.image_download_source":  "http",
		"agent.certificates_path":      b.path("certs"),
		"agent.deploy_logs_collect":    "on_failure",
		"agent.deploy_logs_local_path": b.path("logs"),
		// The pretended power does not go off by itself when the agent switches the machine off.
		"agent.post_deploy_get_power_state_retries":        "1",
		"agent.post_deploy_get_power_state_retry_interval": "1",
		"agent.command_wait_interval":                      "2",

		"pxe.tftp_server":          host,
		"pxe.tftp_root":            b.path("tftp"),
		"pxe.tftp_master_path":     b.path("master/tftp"),
		"pxe.images_path":          b.path("images"),
		"pxe.instance_master_path": b.path("master/instance"),
		// The network of the machines comes on a configuration medium, and a shell is there to break things.
		"pxe.kernel_append_params": "boot_method=vmedia ironhand.shell=1",
	}
	maps.Copy(all, changes)
	sections := map[string][]string{}
	for name, value := range all {
		section, option, _ := strings.Cut(name, ".")
		sections[section] = append(sections[section], option+" = "+value)
	}
	var text strings.Builder
	for _, section := range slices.Sorted(maps.Keys(sections)) {
		slices.Sort(sections[section])
		fmt.Fprintf(&text, "[%s]\n%s\n\n", section, strings.Join(sections[section], "\n"))
	}
	return text.String()
}

// share has labconductor describe, track and seed what is published as an image, beside Ironic, and returns the URL of the torrent. ended says how it went.
func (b *bench) share(name string) (address string, ended func() string) {
	b.t.Helper()
	host := b.network.Host4.Addr().String()
	config, err := conductor.ParseConfig(fmt.Appendf(nil, "{listen: ['%s:6386'], tls: {cert: %q, key: %q}, files: %q, torrent: {share: [%q]}}",
		host, b.path("tls/server.crt"), b.path("tls/server.key"), b.path("http/images"), name))
	b.must(err)
	var mu sync.Mutex
	var events strings.Builder
	c, err := conductor.New(config, conductor.Options{Event: func(e conductor.Event) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&events, e.Text)
	}})
	b.must(err)
	b.must(c.Listen())
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			b.t.Errorf("labconductor: %v", err)
		}
	}()
	ended = func() string {
		cancel()
		<-done
		return events.String()
	}
	b.t.Cleanup(func() { ended() })
	return fmt.Sprintf("https://%s:6386/torrents/%s.torrent", host, name), ended
}

// serve hands out what is below http, as slowly as it is told.
func (b *bench) serve(w http.ResponseWriter, r *http.Request) {
	if rate := b.slow.Load(); rate > 0 && strings.HasPrefix(r.URL.Path, "/images/") {
		w = &slowWriter{w, rate}
	}
	http.FileServer(http.Dir(b.path("http"))).ServeHTTP(w, r)
}

type slowWriter struct {
	http.ResponseWriter
	rate int64
}

func (s *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(s.rate))
	return s.ResponseWriter.Write(p)
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(name string, content []byte) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), content, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) run(name string, args ...string) string {
	b.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts one of Ironic's services. It ends with the tests.
func (b *bench) start(name string) *exec.Cmd {
	b.t.Helper()
	log, err := os.OpenFile(b.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(name, "--config-file", b.path("ironic.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	return cmd
}

func (b *bench) stop(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	kill := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	_ = cmd.Wait() // by a signal
	kill.Stop()
}

// wait returns when the API answers and the conductor has registered.
func (b *bench) wait() {
	b.t.Helper()
	for began := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		var list struct {
			Drivers []struct{ Name string }
		}
		err := b.call("GET", "/v1/drivers", nil, &list)
		if err == nil && len(list.Drivers) > 0 {
			return
		}
		if time.Since(began) > 3*time.Minute {
			b.t.Fatalf("Ironic does not come up: %v", err)
		}
	}
}

// complaints returns the last warnings and errors in the log of a service.
func (b *bench) complaints(name string) string {
	text, err := os.ReadFile(b.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " WARNING ") || strings.Contains(line, " ERROR ") || strings.Contains(line, " CRITICAL ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

var errLocked = errors.New("the node is locked")

// sub runs a part of a test on the same bench.
func (b *bench) sub(name string, f func(t *testing.T)) {
	outer := b.t.(*testing.T)
	outer.Run(name, func(t *testing.T) {
		b.t = t
		defer func() { b.t = outer }()
		f(t)
	})
}

// call makes a request to the API, as an operator does.
func (b *bench) call(method, path string, in, out any) error {
	for attempt := 1; ; attempt++ {
		err := b.request(method, path, in, out)
		if !errors.Is(err, errLocked) || attempt == 60 {
			return err
		}
		time.Sleep(time.Second) // a heartbeat holds the lock
	}
}

func (b *bench) request(method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	req, err := http.NewRequest(method, b.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-OpenStack-Ironic-API-Version", "latest")
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	switch {
	case answer.StatusCode == http.StatusConflict && strings.Contains(string(text), "locked"):
		return errLocked
	case answer.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	case out == nil || len(text) == 0:
		return nil
	}
	return json.Unmarshal(text, out)
}
