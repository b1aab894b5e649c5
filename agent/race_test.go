// SPDX-License-Identifier: Apache-2.0

//go:build race

package agent

// raceDetector tells that the tests are watched for data races, which takes several times the memory.
const raceDetector = true
