// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// callback takes inspection data like Ironic, and keeps it.
func callback(t *testing.T) (url string, data func() []map[string]json.RawMessage) {
	t.Helper()
	got := make(chan map[string]json.RawMessage, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost { // the request for the time
			w.WriteHeader(http.StatusNotFound)
			return
		}
		var body map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		got <- body
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"uuid": "`+nodeUUID+`"}`)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/v1/continue_inspection", func() (list []map[string]json.RawMessage) {
		for len(got) > 0 {
			list = append(list, <-got)
		}
		return list
	}
}

// Inspection comes before the lookup, whose deployment then goes its usual way.
func TestRunInspection(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{handoff: "poweroff"})
	url, data := callback(t)
	parameters := s.medium[0].Files["parameters.txt"]
	s.medium[0].Files["parameters.txt"] = append(parameters, " ipa-inspection-callback-url="+url+" ipa-inspection-dhcp-wait-timeout=0\n"...)
	if err := s.run(time.Minute); err != nil {
		t.Fatalf("Run() = %v", err)
	}
	if err := <-s.result; err != nil {
		t.Errorf("the conductor's deployment: %v", err)
	}
	s.wantConsole("inspection: sent", "lookup: node "+nodeUUID)
	if console := s.shown(); strings.Index(console, "inspection: sent") > strings.Index(console, "lookup: node") {
		t.Errorf("inspected after the lookup:\n%s", console)
	}
	list := data()
	if len(list) != 1 || !strings.Contains(string(list[0]["inventory"]), nodeMAC) || len(list[0]["logs"]) < 1000 || string(list[0]["error"]) != "null" {
		t.Errorf("sent %d times: %.500s", len(list), list)
	}
}

// Without an API the data is all that is wanted.
func TestRunInspectionAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	url, data := callback(t)
	s.medium[0].Files["parameters.txt"] = []byte("ipa-inspection-callback-url=" + url + " ipa-inspection-dhcp-wait-timeout=0\n")
	if err := s.run(5 * time.Second); err != nil {
		t.Fatalf("Run() = %v", err)
	}
	s.wantConsole("inspection: sent", "end: inspected; there is no ipa-api-url")
	if len(data()) != 1 || strings.Contains(s.happened(), "lookup") {
		t.Errorf("looked up, or not sent once:\n%s", s.happened())
	}
}
