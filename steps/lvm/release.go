// SPDX-License-Identifier: Apache-2.0

package lvm

import (
	"context"
	"fmt"
	"slices"

	"github.com/ironhand/ironhand/steps"
)

// Release refuses a disk for an image if one of the node's volume groups is on it, which the node's property logical_volumes names or create_volumes made for the node: the hints for the root disk may fit a
// disk that was given to volumes. Other groups are of a former life, and do not run: the image takes their place.
func Release(ctx context.Context, h steps.Host, n steps.Node, path string) error {
	layout, err := layoutOf(n)
	if err != nil {
		return fail(n, err)
	}
	if len(layout) == 0 {
		if has, err := hasOwn(ctx, h, n); !has || err != nil {
			return err
		}
	}
	s, err := look(ctx, h)
	if err != nil {
		return fail(n, err)
	}
	for _, e := range s.groups {
		if !e.isOf(n) && !slices.ContainsFunc(layout, func(g layoutGroup) bool { return g.Name == e.name }) {
			continue
		}
		if slices.ContainsFunc(e.places, func(p place) bool {
			d := s.disk(p.disk)
			return p.disk == path || slices.Contains(d.below, path)
		}) {
			return fail(n, fmt.Errorf("volume group %q is on %s: give the node root device hints for another disk, or delete it", e.name, path))
		}
	}
	return nil
}
