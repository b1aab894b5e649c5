// SPDX-License-Identifier: Apache-2.0

package erase

// For the tests of other packages' bytes.
var Special = special
