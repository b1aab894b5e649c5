// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
)

// ipaSettings are all kernel parameters and options that ironic-python-agent reads, or has read since the release Zed, each line a parameter,
// its option, and the default if we take it; "-" for none. Source: IPA ironic_python_agent/config.py, ironic_python_agent/inspector.py, ironic-lib's
// disk_utils.py, disk_partitioner.py, metrics_utils.py, mdns.py, and oslo.log's _options.py as far as they are about files.
const ipaSettings = `
ipa-api-url                                  | api_url                                     | -
ipa-inspection-callback-url                  | inspection_callback_url                     | -
ipa-inspection-collectors                    | inspection_collectors                       | -
ipa-inspection-dhcp-wait-timeout             | inspection_dhcp_wait_timeout                | 60
ipa-inspection-dhcp-all-interfaces           | inspection_dhcp_all_interfaces              | false
ipa-inspection-benchmarks                    | -                                           | -
ipa-global-request-id                        | global_request_id                           | -
ipa-debug                                    | debug                                       | false
ipa-agent-token                              | agent_token                                 | -
ipa-agent-token-required                     | agent_token_required                        | -
ipa-listen-host                              | listen_host                                 | ::
ipa-listen-port                              | listen_port                                 | 9999
-                                            | listen_tls                                  | false
-                                            | tls_cert_file                               | -
-                                            | tls_key_file                                | -
-                                            | [ssl] cert_file                             | -
-                                            | [ssl] key_file                              | -
-                                            | enable_auto_tls                             | true
-                                            | auto_tls_allowed_clock_skew                 | 3600
ipa-tls-min-version                          | tls_min_version                             | 1.2
ipa-tls-cipher-suites                        | tls_cipher_suites                           | -
ipa-tls-certificate-curve                    | tls_certificate_curve                       | p384
ipa-advertise-host                           | advertise_host                              | -
ipa-advertise-port                           | advertise_port                              | 9999
ipa-advertise-protocol                       | advertise_protocol                          | http
ipa-ip-lookup-attempts                       | ip_lookup_attempts                          | 6
ipa-ip-lookup-timeout                        | ip_lookup_sleep                             | 10
ipa-network-interface                        | network_interface                           | -
ipa-lookup-timeout                           | lookup_timeout                              | 600
ipa-lookup-interval                          | lookup_interval                             | 1
ipa-http-request-timeout                     | http_request_timeout                        | 30
ipa-ironic-api-version                       | ironic_api_version                          | -
ipa-insecure                                 | insecure                                    | false
-                                            | cafile                                      | -
-                                            | certfile                                    | -
-                                            | keyfile                                     | -
ipa-hardware-initialization-delay            | hardware_initialization_delay               | 0
ipa-disk-wait-attempts                       | disk_wait_attempts                          | 10
ipa-disk-wait-delay                          | disk_wait_delay                             | 3
ipa-lldp-timeout                             | lldp_timeout                                | 30
ipa-collect-lldp                             | collect_lldp                                | false
ipa-enable-vlan-interfaces                   | enable_vlan_interfaces                      | -
ipa-ntp-server                               | ntp_server                                  | -
-                                            | fail_if_clock_not_set                       | false
ipa-image-download-connection-timeout        | image_download_connection_timeout           | 60
ipa-image-download-connection-retries        | image_download_connection_retries           | 9
ipa-image-download-connection-retry-interval | image_download_connection_retry_interval    | 10
ipa-image-download-max-duration              | image_download_max_duration                 | 0
-                                            | image_server_auth_strategy                  | noauth
-                                            | image_server_user                           | -
-                                            | image_server_password                       | -
ipa-ignore-bootloader-failure                | ignore_bootloader_failure                   | false
ipa-inject-files-priority                    | inject_files_priority                       | 0
ipa-guard-special-filesystems                | guard-special-filesystems                   | true
-                                            | md5_enabled                                 | true
-                                            | config_drive_rebuild                        | -
-                                            | disable_deep_image_inspection               | false
-                                            | permitted_image_formats                     | raw,gpt,qcow2
-                                            | disable_bootc_deploy                        | -
-                                            | enable_bios_bootloader_install              | -
-                                            | introspection_daemon                        | -
-                                            | introspection_daemon_post_interval          | -
ipa-use-mdns                                 | [mdns] use_mdns                             | false
BOOTIF                                       | -                                           | -
boot_method                                  | -                                           | -
-                                            | log_file                                    | -
-                                            | log_dir                                     | -
-                                            | use_stderr                                  | -
-                                            | [disk_utils] efi_system_partition_size      | 550
-                                            | [disk_utils] bios_boot_partition_size       | 1
-                                            | [disk_utils] dd_block_size                  | -
-                                            | [disk_utils] partition_detection_attempts   | -
-                                            | [disk_utils] partprobe_attempts             | -
-                                            | [disk_utils] image_convert_memory_limit     | -
-                                            | [disk_utils] image_convert_attempts         | -
-                                            | [disk_partitioner] check_device_interval    | -
-                                            | [disk_partitioner] check_device_max_retries | -
-                                            | [metrics] backend                           | -
-                                            | [metrics] prepend_host                      | -
-                                            | [metrics] prepend_host_reverse              | -
-                                            | [metrics] global_prefix                     | -
-                                            | [metrics_statsd] statsd_host                | -
-                                            | [metrics_statsd] statsd_port                | -
-                                            | [container] allow_arbitrary_containers      | -
-                                            | [container] allowed_containers              | -
-                                            | [container] container_steps_file            | -
-                                            | [container] runner                          | -
-                                            | [container] pull_options                    | -
-                                            | [container] run_options                     | -
-                                            | [mdns] allowed_overrides                    | inspection_callback_url,ntp_server
-                                            | [mdns] lookup_attempts                      | 3
-                                            | [mdns] params                               | -
-                                            | [mdns] interfaces                           | -
`

// Whatever ironic-python-agent can be told is either taken, with the same default, or listed with the reason why it has no effect.
func TestEverySettingOfIPA(t *testing.T) {
	type place struct{ list, value string }
	here := map[string]place{} // by parameter and option
	for _, s := range Settings() {
		here[s.Param+" "+s.Option] = place{"taken", s.Default}
	}
	for _, u := range Unused() {
		here[u.Param+" "+u.Option] = place{"unused", ""}
	}
	// Ours follows the port that the API listens on, which is the same unless that is changed.
	otherDefault := map[string]string{"ipa-advertise-port advertise_port": ""}
	taken, total := 0, 0
	for line := range strings.Lines(strings.TrimPrefix(ipaSettings, "\n")) {
		fields := strings.Split(line, "|")
		for i, f := range fields {
			if fields[i] = strings.TrimSpace(f); fields[i] == "-" {
				fields[i] = ""
			}
		}
		name, want := fields[0]+" "+fields[1], fields[2]
		if other, has := otherDefault[name]; has {
			want = other
		}
		total++
		switch got := here[name]; {
		case got.list == "taken" && got.value != want:
			t.Errorf("%q has the default %q, want %q", name, got.value, want)
		case got.list == "taken":
			taken++
		case got.list == "":
			t.Errorf("%q is neither taken nor listed as unused", name)
		}
		delete(here, name)
	}
	for name, p := range here {
		if p.list == "unused" || !strings.Contains(name, "ironhand") {
			t.Errorf("%q (%s) is none of ironic-python-agent's", name, p.list)
		}
	}
	t.Logf("of %d settings %d are taken, %d have no meaning", total, taken, total-taken)
}
