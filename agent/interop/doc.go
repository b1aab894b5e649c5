// SPDX-License-Identifier: Apache-2.0

// Package interop has the tests of the agent against an unmodified Ironic: Debian's packages ironic-api and ironic-conductor, and the real ramdisk in virtual
// machines. Run them with make test-ironic.
package interop
