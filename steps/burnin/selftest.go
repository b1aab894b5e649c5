// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ironhand/ironhand/inspect"
	"github.com/ironhand/ironhand/steps"
	"github.com/ironhand/ironhand/steps/erase"
)

// Kinds of self-test. The long one reads all of the disk.
const (
	shortTest = "short"
	longTest  = "long"
)

// opener opens a disk for commands to its hardware.
type opener func(path string) (erase.Drive, error)

// localDrives are the drives of the machine on which the program runs; nil if the host is none.
func localDrives(h steps.Host) opener {
	if h.Local {
		return erase.OpenDrive
	}
	return nil
}

// errNoSelfTest is why a disk has no self-test. It is no problem of the disk.
var errNoSelfTest = errors.New("the disk has no self-test")

// A tester knows the self-tests of one kind of drive.
type tester interface {
	// promise is how long a test takes as the drive says, 0 if it does not say. That it has no tests is errNoSelfTest.
	promise(long bool) (time.Duration, error)
	start(long bool) error
	stop() error // a test that runs
	look() (testState, error)
}

// testState is what a drive says of its self-tests.
type testState struct {
	running bool
	percent int     // done
	outcome outcome // of the newest test, if none runs
	text    string  // for people: which part failed, and where
	newest  string  // what stands for the newest test; another one after each
	logged  bool    // the outcome is that of the newest test in a log, and of no other
}

type outcome int

const (
	testPassed outcome = iota
	testFailed
	testStopped // by a command, a reset, or the drive: it says nothing
)

// testerFor returns the tester for a disk, or errNoSelfTest.
func testerFor(d inspect.Disk, drive erase.Drive) (tester, error) {
	name := strings.TrimPrefix(d.Name, "/dev/")
	switch {
	case d.Tran == "usb":
		return nil, fmt.Errorf("%w that can be asked for: adapters for USB hang at what they do not know", errNoSelfTest)
	case strings.HasPrefix(name, "nvme"):
		return nvmeTester{drive}, nil
	case strings.HasPrefix(name, "sd") && d.Vendor == "ATA":
		return ataTester{drive}, nil
	case strings.HasPrefix(name, "sd"):
		return scsiTester{drive}, nil
	}
	return nil, fmt.Errorf("%w: it takes no commands of ATA, SCSI or NVMe", errNoSelfTest)
}

const (
	testPoll = 10 * time.Second
	// A test on a disk that is otherwise used takes longer than the drive promises. Without a promise, a large disk may take days.
	testPatience  = 3
	testSpare     = 10 * time.Minute
	testNoPromise = 72 * time.Hour
	testWaits     = 3 // looks for a result, once a test has ended
	testFailures  = 5 // questions in a row that a drive does not answer
	// answerLimit is how long one question may take; the kernel gives up after a minute, if its driver does not hang.
	answerLimit = 3 * time.Minute
)

// ask has a drive asked, as long as that may take. If it hangs, it stays behind until the drive answers.
func ask[T any](f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		v, err := f()
		done <- answer{v, err}
	}()
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	select {
	case a := <-done:
		return a.value, a.err
	case <-limit.C:
		var none T
		return none, fmt.Errorf("no answer within %v", answerLimit)
	}
}

// testName is a disk's self-test as a part.
func testName(d inspect.Disk) string { return title(d) + ": self-test" }

// selfTest runs a self-test of one disk to its end. show gets the percentage done. That there is no such test is no error: the part is skipped.
func selfTest(ctx context.Context, open opener, d inspect.Disk, long bool, show func(percent int)) ([]Part, error) {
	skip := func(err error) ([]Part, error) {
		return []Part{{Name: testName(d), Verdict: Skipped, Reasons: []string{err.Error()}}}, nil
	}
	fail := func(err error) ([]Part, error) { return nil, fmt.Errorf("%s: %w", testName(d), err) }
	if open == nil {
		return skip(fmt.Errorf("%w: its drive cannot be reached", errNoSelfTest))
	}
	if _, err := testerFor(d, nil); err != nil {
		return skip(err)
	}
	drive, err := ask(func() (erase.Drive, error) { return open(d.Name) })
	if err != nil {
		return fail(err)
	}
	defer drive.Close() // was only asked
	t, err := testerFor(d, drive)
	if err != nil {
		return skip(err)
	}
	promised, err := ask(func() (time.Duration, error) { return t.promise(long) })
	if errors.Is(err, errNoSelfTest) {
		return skip(err)
	}
	if err != nil {
		return fail(err)
	}
	before, err := ask(t.look)
	if err != nil {
		return fail(fmt.Errorf("ask for the last one: %w", err))
	}
	do := func(what string, command func() error) error {
		_, err := ask(func() (struct{}, error) { return struct{}{}, command() })
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	if before.running { // somebody's from before, of which nobody knows what it was
		if err := do("stop the one that runs", t.stop); err != nil {
			return fail(err)
		}
		if before, err = ask(t.look); err != nil {
			return fail(fmt.Errorf("ask for the last one: %w", err))
		}
	}
	if err := do("start", func() error { return t.start(long) }); err != nil {
		return fail(err)
	}
	began, limit := time.Now(), testPatience*promised+testSpare
	if promised == 0 {
		limit = testNoPromise
	}
	seen := false
	for failures, waits := 0, 0; ; {
		select {
		case <-time.After(testPoll):
		case <-ctx.Done():
			return fail(errors.Join(context.Cause(ctx), do("stop it", t.stop)))
		}
		now, err := ask(t.look)
		switch {
		case err != nil:
			if failures++; failures >= testFailures {
				return fail(fmt.Errorf("ask how far it is: %w", err))
			}
			continue
		case now.running:
			failures, seen = 0, true
			show(now.percent)
			if time.Since(began) > limit {
				return fail(errors.Join(fmt.Errorf("not done after %v; the drive promised %v", limit, promised), do("stop it", t.stop)))
			}
			continue
		case !seen && now.newest == before.newest:
			return fail(errors.New("the drive took the command, and did nothing"))
		case now.logged && now.newest == before.newest: // what is there is of an older one
			if waits++; waits > testWaits {
				return fail(errors.New("it ended, and the drive has kept no result of it"))
			}
			continue
		case now.outcome == testStopped:
			return fail(errors.New(now.text))
		}
		show(100)
		p := Part{Name: testName(d), Verdict: Pass, Reasons: []string{fmt.Sprintf("%s, after %v", kindOf(long), time.Since(began).Round(time.Second))}}
		if now.outcome == testFailed {
			p.Verdict, p.Reasons = Fail, []string{kindOf(long) + ": " + now.text}
		}
		return []Part{p}, nil
	}
}

func kindOf(long bool) string {
	if long {
		return longTest
	}
	return shortTest
}

// selfTestLoad has all disks test themselves, beside each other. It reads, and changes nothing of what is on them.
func selfTestLoad(open opener, disks []inspect.Disk, long bool) load {
	l := load{part: "self-tests", far: &farthest{}}
	var promises sync.Mutex
	able := 0
	var all sync.WaitGroup
	for _, d := range disks {
		all.Go(func() {
			promised, err := promiseOf(open, d, long)
			if err != nil {
				return // it is told when its turn comes
			}
			promises.Lock()
			defer promises.Unlock()
			able++
			l.lasts = max(l.lasts, promised)
		})
	}
	all.Wait()
	l.text = fmt.Sprintf("self-tests, %s, of the drives that have them: %d of %d", kindOf(long), able, len(disks))
	l.run = func(ctx context.Context) ([]Part, error) {
		tested, errs := make([][]Part, len(disks)), make([]error, len(disks))
		first := map[string]string{} // disk by controller
		var all sync.WaitGroup
		for i, d := range disks {
			l.far.set(d.Name, 0)
			if c := controller(d.Name); c != "" {
				if first[c] != "" {
					tested[i] = []Part{{Name: testName(d), Verdict: Skipped, Reasons: []string{"its controller tests it with " + first[c]}}}
					l.far.set(d.Name, 100)
					continue
				}
				first[c] = d.Name
			}
			all.Go(func() {
				tested[i], errs[i] = selfTest(ctx, open, d, long, func(percent int) { l.far.set(d.Name, percent) })
				l.far.set(d.Name, 100)
			})
		}
		all.Wait()
		return slices.Concat(tested...), errors.Join(errs...)
	}
	return l
}

// controller is the NVMe controller of a disk, "" for other disks.
func controller(disk string) string {
	number, isNVMe := strings.CutPrefix(disk, "/dev/nvme")
	if !isNVMe {
		return ""
	}
	return number[:len(number)-len(strings.TrimLeft(number, "0123456789"))]
}

func promiseOf(open opener, d inspect.Disk, long bool) (time.Duration, error) {
	if open == nil {
		return 0, errNoSelfTest
	}
	if _, err := testerFor(d, nil); err != nil {
		return 0, err
	}
	drive, err := ask(func() (erase.Drive, error) { return open(d.Name) })
	if err != nil {
		return 0, err
	}
	defer drive.Close() // was only asked
	t, err := testerFor(d, drive)
	if err != nil {
		return 0, err
	}
	return ask(func() (time.Duration, error) { return t.promise(long) })
}

// farthest is how far the disks are, of which the slowest counts.
type farthest struct {
	mu      sync.Mutex
	percent map[string]int
}

func (f *farthest) set(disk string, percent int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.percent == nil {
		f.percent = map[string]int{}
	}
	f.percent[disk] = percent
}

func (f *farthest) least() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	least := 100
	for _, p := range f.percent {
		least = min(least, p)
	}
	return least
}

// ataTester speaks SMART: ACS-4, 7.46, and for what READ DATA and the logs have, 7.46.6 and 9.21 to 9.23 (before ACS-3 in 8.x).
type ataTester struct{ erase.Drive }

const (
	smartData    = 0xd0
	smartExecute = 0xd4
	smartLog     = 0xd5

	ataShort, ataLong, ataStop = 0x01, 0x02, 0x7f
	ataTestLog                 = 0x06
	ataTestLogExt              = 0x07
)

// ataOutcomes are the upper halves of the execution status.
var ataOutcomes = [16]string{
	1: "stopped by a command", 2: "interrupted by a reset", 3: "the drive could not complete it, for an error that it does not know", 4: "failed, and the drive does not say in what",
	5: "failed in the electrical part", 6: "failed in the servo or seek part", 7: "failed in reading", 8: "failed; the drive suspects that it was handled badly",
}

func (a ataTester) data() ([]byte, error) {
	b := make([]byte, 512)
	if err := erase.ATASMART(a.Drive, smartData, 0, b); err != nil {
		return nil, err
	}
	sum := byte(0)
	for _, c := range b {
		sum += c
	}
	if sum != 0 {
		return nil, errors.New("SMART data has a wrong checksum")
	}
	return b, nil
}

func (a ataTester) promise(long bool) (time.Duration, error) {
	b, err := a.data()
	if err != nil {
		return 0, fmt.Errorf("%w that it tells of: SMART: %w", errNoSelfTest, err)
	}
	if b[367]&(1<<4) == 0 {
		return 0, fmt.Errorf("%w, it says", errNoSelfTest)
	}
	minutes := int(b[372])
	if long {
		if minutes = int(b[373]); minutes == 0xff {
			minutes = int(binary.LittleEndian.Uint16(b[375:]))
		}
	}
	return time.Duration(minutes) * time.Minute, nil
}

func (a ataTester) start(long bool) error {
	if long {
		return erase.ATASMART(a.Drive, smartExecute, ataLong, nil)
	}
	return erase.ATASMART(a.Drive, smartExecute, ataShort, nil)
}

func (a ataTester) stop() error { return erase.ATASMART(a.Drive, smartExecute, ataStop, nil) }

func (a ataTester) look() (testState, error) {
	b, err := a.data()
	if err != nil {
		return testState{}, err
	}
	status := b[363]
	if status>>4 == 0xf {
		return testState{running: true, percent: max(0, 100-10*int(status&0xf))}, nil
	}
	s := testState{text: ataOutcomes[status>>4]}
	switch n := status >> 4; {
	case n == 0:
		s.outcome = testPassed
	case n <= 2:
		s.outcome = testStopped
	default:
		s.outcome = testFailed
		if s.text == "" {
			s.text = fmt.Sprintf("failed with the status %Xh", n)
		}
	}
	entry, wide, err := a.newest()
	if err != nil {
		return s, nil // the status is enough, but for the place
	}
	s.newest = string(entry)
	if lba, ok := parseATAEntry(entry, wide); ok && s.outcome == testFailed {
		s.text += fmt.Sprintf(", at LBA %d", lba)
	}
	return s, nil
}

// newest returns the newest entry of the log of self-tests, wide if it has addresses of 48 bits; nil if there is none.
func (a ataTester) newest() (entry []byte, wide bool, err error) {
	if b, err := erase.ATALog(a.Drive, ataTestLogExt, 0); err == nil {
		const size, each = 26, 19
		index := int(binary.LittleEndian.Uint16(b[2:]))
		if index == 0 {
			return nil, true, nil
		}
		if page := (index - 1) / each; page > 0 {
			if b, err = erase.ATALog(a.Drive, ataTestLogExt, uint16(page)); err != nil {
				return nil, true, err
			}
		}
		at := 4 + (index-1)%each*size
		return append([]byte{byte(index), byte(index >> 8)}, b[at:at+size]...), true, nil
	}
	b := make([]byte, 512)
	if err := erase.ATASMART(a.Drive, smartLog, ataTestLog, b); err != nil {
		return nil, false, err
	}
	const size, most = 24, 21
	index := int(b[508])
	if index == 0 {
		return nil, false, nil
	}
	if index > most {
		return nil, false, fmt.Errorf("the log of self-tests has an entry %d", index)
	}
	at := 2 + (index-1)*size
	return append([]byte{byte(index), 0}, b[at:at+size]...), false, nil
}

// parseATAEntry reads the address that failed: in an entry after its number. All ones stand for none.
func parseATAEntry(entry []byte, wide bool) (lba uint64, ok bool) {
	if wide && len(entry) >= 2+11 {
		b := append(bytes.Clone(entry[2+5:2+11]), 0, 0)
		lba = binary.LittleEndian.Uint64(b)
		return lba, lba != 1<<48-1
	}
	if !wide && len(entry) >= 2+9 {
		n := binary.LittleEndian.Uint32(entry[2+5:])
		return uint64(n), n != 1<<32-1 && n != 1<<28-1
	}
	return 0, false
}

// scsiTester speaks SPC-5: SEND DIAGNOSTIC (6.42), the log page of self-test results (7.3.20) and the control mode page (7.5.9).
type scsiTester struct{ erase.Drive }

const (
	scsiShort, scsiLong, scsiStop = 1 << 5, 2 << 5, 4 << 5 // in the background
	scsiShortTime                 = 2 * time.Minute        // the standard's limit (SPC-5, 5.16.3)
)

func (s scsiTester) log() ([]byte, error) {
	b := make([]byte, 4+20*20)
	err := erase.SCSI(s.Drive, []byte{0x4d, 0, 1<<6 | 0x10, 0, 0, 0, 0, byte(len(b) >> 8), byte(len(b)), 0}, b)
	if err != nil {
		return nil, err
	}
	if b[0]&0x3f != 0x10 {
		return nil, errors.New("it gives another log page")
	}
	return b, nil
}

func (s scsiTester) promise(long bool) (time.Duration, error) {
	if _, err := s.log(); err != nil {
		return 0, fmt.Errorf("%w that it tells of: log page of results: %w", errNoSelfTest, err)
	}
	if !long {
		return scsiShortTime, nil
	}
	b := make([]byte, 64)
	// Without block descriptors, the control mode page.
	if err := erase.SCSI(s.Drive, []byte{0x1a, 1 << 3, 0x0a, 0, byte(len(b)), 0}, b); err != nil {
		return 0, nil // nothing is promised
	}
	page := b[4+min(int(b[3]), 16):]
	if page[0]&0x3f != 0x0a || page[1] < 0x0a {
		return 0, nil
	}
	seconds := binary.BigEndian.Uint16(page[10:])
	if seconds != 0xffff {
		return time.Duration(seconds) * time.Second, nil
	}
	vpd := make([]byte, 64) // extended INQUIRY data: in minutes, for larger disks
	if err := erase.SCSI(s.Drive, []byte{0x12, 1, 0x86, 0, byte(len(vpd)), 0}, vpd); err != nil || vpd[1] != 0x86 {
		return 0, nil
	}
	return time.Duration(binary.BigEndian.Uint16(vpd[10:])) * time.Minute, nil
}

func (s scsiTester) send(code byte) error {
	return erase.SCSI(s.Drive, []byte{0x1d, code, 0, 0, 0, 0}, nil)
}

func (s scsiTester) start(long bool) error {
	if long {
		return s.send(scsiLong)
	}
	return s.send(scsiShort)
}

func (s scsiTester) stop() error { return s.send(scsiStop) }

func (s scsiTester) look() (testState, error) {
	b, err := s.log()
	if err != nil {
		return testState{}, err
	}
	state := parseSCSITest(b)
	if state.running {
		if fraction, err := erase.SCSIProgress(s.Drive); err == nil { // else it is not known
			state.percent = int(100 * fraction)
		}
	}
	return state, nil
}

// parseSCSITest reads the newest entry of the log page, of which b has at least the first.
func parseSCSITest(b []byte) testState {
	if binary.BigEndian.Uint16(b[2:]) < 20 || binary.BigEndian.Uint16(b[4:]) != 1 {
		return testState{logged: true} // none yet
	}
	e := b[4:24]
	s := testState{newest: string(b[4:]), logged: true} // all of the log: two tests within an hour look the same
	switch n := e[4] & 0xf; {
	case n == 0xf:
		s.running = true
	case n == 0:
		s.outcome = testPassed
	case n == 1, n == 2:
		s.outcome, s.text = testStopped, map[byte]string{1: "stopped by a command", 2: "interrupted by a reset or another command"}[n]
	default:
		s.outcome = testFailed
		s.text = map[byte]string{3: "the drive could not complete it, for an error that it does not know", 4: "failed, and the drive does not say in what",
			5: "failed in the first segment", 6: "failed in the second segment", 7: "failed in a later segment"}[n]
		if s.text == "" {
			s.text = fmt.Sprintf("failed with the result %Xh", n)
		}
		if e[5] != 0 {
			s.text += fmt.Sprintf(", segment %d", e[5])
		}
		if lba := binary.BigEndian.Uint64(e[8:]); lba != 1<<64-1 {
			s.text += fmt.Sprintf(", at LBA %d", lba)
		}
		if e[16]&0xf != 0 || e[17] != 0 {
			s.text += fmt.Sprintf(" (sense %x/%02x/%02x)", e[16]&0xf, e[17], e[18])
		}
	}
	return s
}

// nvmeTester speaks the NVM Express Base Specification 2.0: Device Self-test (5.9), its log (5.16.1.7), Identify Controller (figure 275).
type nvmeTester struct{ erase.Drive }

const (
	nvmeSelfTest                  = 0x14
	nvmeLog, nvmeWho              = 0x02, 0x06
	nvmeTestLog, nvmeTestLogSize  = 0x06, 564
	nvmeShort, nvmeLong, nvmeStop = 1, 2, 0xf
	nvmeAll                       = 0xffffffff // the controller, and all its namespaces
	nvmeShortTime                 = 2 * time.Minute
	nvmeLimit                     = 60 * time.Second
)

func (n nvmeTester) promise(long bool) (time.Duration, error) {
	b := make([]byte, 4096)
	if err := n.NVMe(erase.NVMeCommand{Opcode: nvmeWho, CDW10: 1, Data: b, Timeout: nvmeLimit}); err != nil {
		return 0, fmt.Errorf("identify: %w", err)
	}
	if binary.LittleEndian.Uint16(b[256:])&(1<<4) == 0 {
		return 0, fmt.Errorf("%w, its controller says", errNoSelfTest)
	}
	if !long {
		return nvmeShortTime, nil // 8.6.1: a short one should take no longer
	}
	return time.Duration(binary.LittleEndian.Uint16(b[316:])) * time.Minute, nil
}

func (n nvmeTester) command(code uint32) error {
	return n.NVMe(erase.NVMeCommand{Opcode: nvmeSelfTest, Namespace: nvmeAll, CDW10: code, Timeout: nvmeLimit})
}

func (n nvmeTester) start(long bool) error {
	if long {
		return n.command(nvmeLong)
	}
	return n.command(nvmeShort)
}

func (n nvmeTester) stop() error { return n.command(nvmeStop) }

func (n nvmeTester) look() (testState, error) {
	b := make([]byte, nvmeTestLogSize)
	if err := n.NVMe(erase.NVMeCommand{Opcode: nvmeLog, Namespace: nvmeAll, CDW10: nvmeTestLog | (nvmeTestLogSize/4-1)<<16, Data: b, Timeout: nvmeLimit}); err != nil {
		return testState{}, err
	}
	return parseNVMeTest(b), nil
}

// parseNVMeTest reads the log of 564 bytes.
func parseNVMeTest(b []byte) testState {
	if b[0]&0xf != 0 {
		return testState{running: true, percent: int(b[1] & 0x7f)}
	}
	e := b[4:32]
	s := testState{newest: string(b[4:]), logged: true} // all of the log: two tests within an hour look the same
	switch n := e[0] & 0xf; n {
	case 0:
		s.outcome = testPassed
	case 1, 2, 3, 4, 8, 9:
		s.outcome = testStopped
		s.text = map[byte]string{1: "stopped by a command", 2: "interrupted by a reset of the controller", 3: "interrupted, for a namespace was removed",
			4: "interrupted by a format", 8: "interrupted, and the drive does not say why", 9: "interrupted by a sanitize"}[n]
	case 0xf: // no test yet
		s.outcome, s.text = testStopped, "the drive keeps no result"
	default:
		s.outcome = testFailed
		s.text = map[byte]string{5: "the drive could not complete it, for an error that it does not know", 6: "failed, and the drive does not say in what", 7: "failed"}[n]
		if s.text == "" {
			s.text = fmt.Sprintf("failed with the result %Xh", n)
		}
		if n == 7 {
			s.text += fmt.Sprintf(" in segment %d", e[1])
		}
		if e[2]&1 != 0 {
			s.text += fmt.Sprintf(", namespace %d", binary.LittleEndian.Uint32(e[12:]))
		}
		if e[2]&2 != 0 {
			s.text += fmt.Sprintf(", at LBA %d", binary.LittleEndian.Uint64(e[16:]))
		}
		if e[2]&0xc != 0 {
			s.text += fmt.Sprintf(" (status %x/%02x)", e[24]&7, e[25])
		}
	}
	return s
}
