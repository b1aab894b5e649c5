// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/ironhand/ironhand/image"
	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/stream"
)

// An Error is an error in Ironic's form. The conductor shows Details, or else Message, as the
// node's last error.
type Error struct {
	Type    string `json:"type"`    // one of the names in errorTable
	Code    int    `json:"code"`    // as an HTTP status
	Message string `json:"message"` // the same for all errors of a type
	Details string `json:"details"`

	cause error
}

// Error returns message and details, as ironic-python-agent prints them.
func (e *Error) Error() string { return e.Message + ": " + e.Details }

// Unwrap returns the error that this one gives a form to.
func (e *Error) Unwrap() error { return e.cause }

// errorTable has every type of error, its code and its message: operators search their logs for
// these. Source: IPA ironic_python_agent/errors.py.
var errorTable = []struct {
	typ     string
	code    int
	message string
}{
	{"InvalidContentError", 400, "Invalid request body"},
	{"InvalidCommandError", 400, "Invalid command"},
	{"InvalidCommandParamsError", 400, "Invalid command parameters"},

	{"NotFound", 404, "Not found"},
	{"RequestedObjectNotFoundError", 404, "Not found"},
	{"DeviceNotFound", 404, "Error finding the disk or partition device to deploy the image onto"},

	{"ImageDownloadTimeoutError", 408, "Error downloading image"},

	{"AgentIsBusy", 409, "Agent is busy"},
	{"VersionMismatch", 409, "Hardware managers version mismatch, reload agent with correct version"},

	{"RESTError", 500, "An error occurred"},
	{"CommandExecutionError", 500, "Command execution failed"},
	{"AgentRestartedError", 500, "The agent was started again"}, // ours
	{"ExtensionError", 500, "An error occurred"},
	{"UnknownNodeError", 500, "Agent is not associated with an Ironic node"},
	{"VirtualMediaBootError", 500, "Configuring agent from virtual media failed"},
	{"ClockSyncError", 500, "Error syncing system clock"},
	{"SystemRebootError", 500, "Error rebooting system"},

	{"ImageDownloadError", 500, "Error downloading image"},
	{"ImageDownloadOutofSpaceError", 500, "Error downloading image"},
	{"ImageDownloadFatalError", 500, "Error downloading image"},
	{"ImageChecksumError", 500, "Error verifying image checksum"},
	{"ImageWriteError", 500, "Error writing image to device"},
	{"InvalidImage", 500, "The provided image is not valid for use"},

	{"BlockDeviceError", 500, "Block device caused unknown error"},
	{"BlockDeviceEraseError", 500, "Error erasing block device"},
	{"ProtectedDeviceError", 500, "Protected device located, cleaning aborted."},
	{"FileSystemNotSupported", 500, "An error occurred"},
	{"SoftwareRAIDError", 500, "Software RAID caused unknown error"},

	{"HardwareManagerNotFound", 500, "No valid HardwareManager found"},
	{"HardwareManagerMethodNotFound", 500, "No HardwareManager found to handle method"},
	{"HardwareManagerConfigurationError", 500, "Hardware manager is misconfigured"},
	{"IncompatibleHardwareMethodError", 500, "HardwareManager method is not compatible with hardware"},
	{"IncompatibleNumaFormatError", 500, "Error in NUMA node data format"},
	{"ContainerNotPermittedError", 500, "An error occurred"},

	{"CleaningError", 500, "Clean step failed"},
	{"DeploymentError", 500, "Deploy step failed"},
	{"ServicingError", 500, "Service step failed"},
}

// newError makes an error of a type in errorTable. Format and args are those of fmt.Errorf, and
// make the details; an error behind %w can be found again.
func newError(typ, format string, args ...any) *Error {
	text := fmt.Errorf(format, args...)
	e := &Error{
		Type: typ, Code: http.StatusInternalServerError, Message: "An error occurred",
		Details: clip(text.Error()), cause: text,
	}
	for _, t := range errorTable {
		if t.typ == typ {
			e.Code, e.Message = t.code, t.message
		}
	}
	return e
}

// clip bounds the details: the agent keeps them, and the conductor writes them into its database.
func clip(s string) string {
	const limit = 8 << 10
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}

// invalidParams is the error of a command whose parameters make no sense. If a command
// returns it before it does anything, the request is answered with 400.
func invalidParams(format string, args ...any) *Error {
	return newError("InvalidCommandParamsError", format, args...)
}

// isInvalidContent tells errors that are the caller's fault: they are answered with their code and
// do not become the result of a command.
func (e *Error) isInvalidContent() bool { return e.Code == http.StatusBadRequest }

// errorForms has Ironic's type for the errors that other packages tell apart. The first that
// matches counts. Types as in IPA ironic_python_agent/extensions/standby.py and hardware.py.
var errorForms = []struct {
	is  error
	typ string
}{
	{steps.ErrRAID, "SoftwareRAIDError"}, // whatever it is of software RAID
	{inspect.ErrHints, "DeviceNotFound"},
	{inspect.ErrNoDisk, "DeviceNotFound"},
	{inspect.ErrUnread, "DeviceNotFound"},
	{image.ErrRootTooSmall, "InvalidCommandParamsError"}, // before stream.ErrTooLarge, which may be the cause
	{stream.ErrDigest, "ImageChecksumError"},
	{stream.ErrChanged, "ImageDownloadError"},
	{stream.ErrFormat, "InvalidImage"},
	{stream.ErrWindow, "InvalidImage"},
	{stream.ErrEmpty, "InvalidImage"},
	{stream.ErrTooLarge, "InvalidImage"},
	{image.ErrSectorSize, "InvalidImage"},
	{stream.ErrReadBack, "ImageWriteError"},
	{image.ErrNoTable, "DeploymentError"},
	{image.ErrNoPartitions, "DeploymentError"},
	{image.ErrConfigDrive, "DeploymentError"},
	{steps.ErrVersion, "VersionMismatch"},
	{steps.ErrArgs, "InvalidCommandParamsError"},
	{image.ErrLayout, "DeploymentError"},
	{steps.ErrPartition, "DeviceNotFound"},
	{steps.ErrProtected, "ProtectedDeviceError"},
	{steps.ErrErase, "BlockDeviceEraseError"},
	{steps.ErrBurnIn, "CommandExecutionError"},
	{steps.ErrNoStep, "HardwareManagerMethodNotFound"},
	{steps.ErrNoManager, "HardwareManagerNotFound"},
}

// asError gives an error Ironic's form; nothing else does. What has no type of its own is a
// CommandExecutionError. The details are always the whole text.
func asError(err error) *Error {
	if e, ok := err.(*Error); ok {
		return e
	}
	var inner *Error
	if errors.As(err, &inner) { // wrapped on its way: keep what was added
		return &Error{Type: inner.Type, Code: inner.Code, Message: inner.Message, Details: clip(err.Error()), cause: err}
	}
	for _, f := range errorForms {
		if errors.Is(err, f.is) {
			return newError(f.typ, "%w", err)
		}
	}
	var status *stream.StatusError
	if errors.As(err, &status) {
		return newError("ImageDownloadError", "%w", err)
	}
	return newError("CommandExecutionError", "%w", err)
}
