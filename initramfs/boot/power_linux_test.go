// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"os"
	"path/filepath"
	"testing"
)

// Arrays of levels with a second copy are not brought in step any more; the others have nothing that could be told.
func TestFreezeArrays(t *testing.T) {
	block := t.TempDir()
	for name, file := range map[string]string{"md0": "sync_action", "md127": "sync_action", "md1": "array_state", "sda": "size"} {
		dir := filepath.Join(block, name, "md")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte("resync"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := freezeArrays(block); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"md0/md/sync_action": "frozen", "md127/md/sync_action": "frozen", "md1/md/array_state": "resync", "sda/md/size": "resync"} {
		if got, err := os.ReadFile(filepath.Join(block, name)); string(got) != want || err != nil {
			t.Errorf("%s = %q, %v, want %q", name, got, err, want)
		}
	}
}
