// SPDX-License-Identifier: Apache-2.0

package torrent

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"testing"
)

// One machine that names all its ports does not keep others from being known.
func TestTrackerOneAddress(t *testing.T) {
	name, _ := makeImage(t, 1<<20)
	m := mustMake(t, name, MakeOptions{})
	var tr Tracker
	tr.Add(m, 0)
	hash := m.hashes()[0]
	announce := func(from string, port int) {
		r := httptest.NewRequest("GET", fmt.Sprintf("/announce?info_hash=%s&port=%d&numwant=0", url.QueryEscape(string(hash[:])), port), nil)
		r.RemoteAddr = from
		tr.ServeHTTP(httptest.NewRecorder(), r)
	}
	for port := 1; port <= 1000; port++ {
		announce("192.0.2.1:40000", port)
	}
	announce("192.0.2.2:40000", 6881)
	if got, want := len(tr.Peers(m)), trackerAddress+1; got != want {
		t.Errorf("%d peers are known, want %d", got, want)
	}
}
