// SPDX-License-Identifier: Apache-2.0

package agent

// CommandList is the list of all commands, for the pages made from it.
func CommandList() []Command { return new(agent).commands() }
