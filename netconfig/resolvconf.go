// SPDX-License-Identifier: Apache-2.0

package netconfig

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// parseResolvConf returns the name servers of a resolv.conf(5). Lines that it
// does not know are none of its business.
func parseResolvConf(b []byte) []netip.Addr {
	var servers []netip.Addr
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			servers = append(servers, a.Unmap())
		}
	}
	return servers
}

// resolvConf returns a resolv.conf(5). Resolvers read the first three servers
// (MAXNS of the C library and the same in Go), so the rest is for people.
func resolvConf(servers []netip.Addr) []byte {
	b := []byte("# by ironhand, from the description of the network\n")
	for _, s := range servers {
		b = fmt.Appendf(b, "nameserver %s\n", s)
	}
	return b
}

// replaceFile writes a file that readers see old or new, never half.
func replaceFile(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name()) // the first error is the one to tell
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), path)
}
