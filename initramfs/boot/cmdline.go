// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"strings"
)

// parameter is one word of the kernel command line.
type parameter struct{ key, value string }

// parseCmdline splits a kernel command line as the kernel does (lib/cmdline.c, next_arg): words are parted by white space
// outside double quotes, and quotes around a word or its value are taken off. A word without "=" has an empty value.
func parseCmdline(line string) []parameter {
	var all []parameter
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		end, quoted := 0, false
		for ; end < len(line); end++ {
			if line[end] == '"' {
				quoted = !quoted
			} else if !quoted && strings.IndexByte(" \t\n\v\f\r", line[end]) >= 0 {
				break
			}
		}
		key, value, _ := strings.Cut(strings.Trim(line[:end], `"`), "=")
		all = append(all, parameter{key, strings.Trim(value, `"`)})
		line = line[end:]
	}
	return all
}

// lookup returns the last value that the command line gives to key.
func lookup(all []parameter, key string) (value string, ok bool) {
	for _, p := range all {
		if p.key == key {
			value, ok = p.value, true
		}
	}
	return value, ok
}

// moduleParameters returns what the command line says to loadable modules: for each module its parameters in the form that
// finit_module(2) takes, and the modules that are not to be loaded for a device. Dashes in names count as underscores.
func moduleParameters(all []parameter) (params map[string]string, deny map[string]bool) {
	params = map[string]string{
		// Without this, bonding makes a bond0 that nobody asked for.
		"bonding": "max_bonds=0",
		// Without this, most watchdogs are stopped by a kexec, which ArmWatchdog is there to guard. Nothing else arms one.
		"watchdog": "stop_on_reboot=0",
	}
	deny = map[string]bool{}
	for _, p := range all {
		switch p.key {
		case "modprobe.blacklist", "module_blacklist":
			for name := range strings.SplitSeq(p.value, ",") {
				deny[moduleName(name)] = true
			}
			continue
		}
		module, param, dotted := strings.Cut(p.key, ".")
		if !dotted || module == "" || param == "" {
			continue
		}
		if p.value != "" {
			param += "=" + quote(p.value)
		}
		name := moduleName(module)
		params[name] = strings.TrimSpace(params[name] + " " + param)
	}
	return params, deny
}

// quote puts back the quotes that parseCmdline took off: the kernel parses a module's parameters like its own.
func quote(value string) string {
	if strings.ContainsAny(value, " \t\n") {
		return `"` + value + `"`
	}
	return value
}

// hostname returns the name that the command line wants for this machine, or a default with an error if it wants one that
// no machine may have (RFC 1123, and the 64 bytes of sethostname(2)).
func hostname(all []parameter) (string, error) {
	const standard = "ironhand"
	name, ok := lookup(all, "ironhand.hostname")
	if !ok {
		return standard, nil
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
	if name == "" || len(name) > 64 || strings.Trim(name, letters) != "" || strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") {
		return standard, fmt.Errorf("parameter ironhand.hostname: %.80q is not a host name", name)
	}
	return name, nil
}
