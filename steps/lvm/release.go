// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ironhand/ironhand/steps"
)

// Release refuses a disk for an image if one of the volume groups that the node's property logical_volumes names is on it: the hints for the root disk may fit a disk that
// was given to volumes. Other groups are of a former life, and do not run: the image takes their place.
func Release(ctx context.Context, h steps.Host, n steps.Node, path string) error {
	layout := n.Properties["logical_volumes"]
	if absent(layout) {
		return nil
	}
	var groups []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(layout, &groups); err != nil {
		return fail(n, fmt.Errorf("logical_volumes in properties: %w", err))
	}
	s, err := look(ctx, h)
	if err != nil {
		return fail(n, err)
	}
	for _, e := range s.groups {
		for _, g := range groups {
			on := slices.ContainsFunc(e.places, func(p place) bool {
				d := s.disk(p.disk)
				return p.disk == path || slices.Contains(d.below, path)
			})
			if e.name == g.Name && on {
				return fail(n, fmt.Errorf("volume group %q is on %s: give the node root device hints for another disk, or delete it", e.name, path))
			}
		}
	}
	return nil
}
