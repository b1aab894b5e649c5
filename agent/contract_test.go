// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
)

// ipaSettings are all kernel parameters and options that ironic-python-agent reads, or has read since the release Zed, each line a parameter
// with its option, "-" for none. Source: IPA ironic_python_agent/config.py, ironic_python_agent/inspector.py, ironic-lib's
// disk_utils.py, disk_partitioner.py, metrics_utils.py, mdns.py, and oslo.log's _options.py as far as they are about files.
const ipaSettings = `
ipa-api-url                                  api_url
ipa-inspection-callback-url                  inspection_callback_url
ipa-inspection-collectors                    inspection_collectors
ipa-inspection-dhcp-wait-timeout             inspection_dhcp_wait_timeout
ipa-inspection-dhcp-all-interfaces           inspection_dhcp_all_interfaces
ipa-inspection-benchmarks                    -
ipa-global-request-id                        global_request_id
ipa-debug                                    debug
ipa-agent-token                              agent_token
ipa-agent-token-required                     agent_token_required
ipa-listen-host                              listen_host
ipa-listen-port                              listen_port
-                                            listen_tls
-                                            tls_cert_file
-                                            tls_key_file
-                                            [ssl] cert_file
-                                            [ssl] key_file
-                                            enable_auto_tls
-                                            auto_tls_allowed_clock_skew
ipa-tls-min-version                          tls_min_version
ipa-tls-cipher-suites                        tls_cipher_suites
ipa-tls-certificate-curve                    tls_certificate_curve
ipa-advertise-host                           advertise_host
ipa-advertise-port                           advertise_port
ipa-advertise-protocol                       advertise_protocol
ipa-ip-lookup-attempts                       ip_lookup_attempts
ipa-ip-lookup-timeout                        ip_lookup_sleep
ipa-network-interface                        network_interface
ipa-lookup-timeout                           lookup_timeout
ipa-lookup-interval                          lookup_interval
ipa-http-request-timeout                     http_request_timeout
ipa-ironic-api-version                       ironic_api_version
ipa-insecure                                 insecure
-                                            cafile
-                                            certfile
-                                            keyfile
ipa-hardware-initialization-delay            hardware_initialization_delay
ipa-disk-wait-attempts                       disk_wait_attempts
ipa-disk-wait-delay                          disk_wait_delay
ipa-lldp-timeout                             lldp_timeout
ipa-collect-lldp                             collect_lldp
ipa-enable-vlan-interfaces                   enable_vlan_interfaces
ipa-ntp-server                               ntp_server
-                                            fail_if_clock_not_set
ipa-image-download-connection-timeout        image_download_connection_timeout
ipa-image-download-connection-retries        image_download_connection_retries
ipa-image-download-connection-retry-interval image_download_connection_retry_interval
ipa-image-download-max-duration              image_download_max_duration
-                                            image_server_auth_strategy
-                                            image_server_user
-                                            image_server_password
ipa-ignore-bootloader-failure                ignore_bootloader_failure
ipa-inject-files-priority                    inject_files_priority
ipa-guard-special-filesystems                guard-special-filesystems
-                                            md5_enabled
-                                            config_drive_rebuild
-                                            disable_deep_image_inspection
-                                            permitted_image_formats
-                                            disable_bootc_deploy
-                                            enable_bios_bootloader_install
-                                            introspection_daemon
-                                            introspection_daemon_post_interval
ipa-use-mdns                                 [mdns] use_mdns
BOOTIF                                       -
boot_method                                  -
-                                            log_file
-                                            log_dir
-                                            use_stderr
-                                            [disk_utils] efi_system_partition_size
-                                            [disk_utils] bios_boot_partition_size
-                                            [disk_utils] dd_block_size
-                                            [disk_utils] partition_detection_attempts
-                                            [disk_utils] partprobe_attempts
-                                            [disk_utils] image_convert_memory_limit
-                                            [disk_utils] image_convert_attempts
-                                            [disk_partitioner] check_device_interval
-                                            [disk_partitioner] check_device_max_retries
-                                            [metrics] backend
-                                            [metrics] prepend_host
-                                            [metrics] prepend_host_reverse
-                                            [metrics] global_prefix
-                                            [metrics_statsd] statsd_host
-                                            [metrics_statsd] statsd_port
-                                            [container] allow_arbitrary_containers
-                                            [container] allowed_containers
-                                            [container] container_steps_file
-                                            [container] runner
-                                            [container] pull_options
-                                            [container] run_options
-                                            [mdns] allowed_overrides
-                                            [mdns] lookup_attempts
-                                            [mdns] params
-                                            [mdns] interfaces
`

// Whatever ironic-python-agent can be told is either taken, or listed with the reason why it has no effect.
func TestEverySettingOfIPA(t *testing.T) {
	here := map[string]string{} // parameter and option -> which list
	for _, s := range Settings() {
		here[s.Param+" "+s.Option] = "taken"
	}
	later, never := 0, 0
	for _, u := range Unused() {
		here[u.Param+" "+u.Option] = "unused"
		if u.Later {
			later++
		} else {
			never++
		}
	}
	taken, total := 0, 0
	for line := range strings.Lines(strings.TrimPrefix(ipaSettings, "\n")) {
		param, option, _ := strings.Cut(strings.TrimSpace(line), " ")
		option = strings.TrimSpace(option)
		name := strings.TrimPrefix(param, "-") + " " + strings.TrimPrefix(option, "-")
		total++
		switch here[name] {
		case "taken":
			taken++
		case "":
			t.Errorf("%q is neither taken nor listed as unused", name)
		}
		delete(here, name)
	}
	for name, list := range here {
		if list == "unused" || !strings.Contains(name, "ironhand") {
			t.Errorf("%q (%s) is none of ironic-python-agent's", name, list)
		}
	}
	t.Logf("of %d settings %d are taken, %d have no effect yet, %d have no meaning", total, taken, later, never)
}
