# SPDX-License-Identifier: Apache-2.0
# `make` lists the targets. All run as root on Debian 12; check and unit need no root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

B := build
TOOLCHAIN = $(shell scripts/toolchain)
# Tests build programs too, so the same Go is found by its name.
GO = PATH="$(dir $(TOOLCHAIN)):$$PATH" GOTOOLCHAIN=local $(TOOLCHAIN)
export CGO_ENABLED := 0
export IRONHAND_BUILD := $(CURDIR)/$(B)
BUILD_FLAGS := -trimpath -ldflags='-s -w'
# Without HTTP/2, which nobody on the other side needs, the agent is half a MiB smaller.
AGENT_FLAGS := -tags nethttpomithttp2,noboltdb
SOURCES := $(shell find . -name '*.go' -not -name '*_test.go' -not -path './$(B)/*') go.mod go.sum

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

.PHONY: demo
demo: packages ## the main job, from a cold machine to a running Debian; FIRMWARE=uefi|secureboot|bios HANDOFF=kexec|reboot NIC=virtio|e1000e MEMORY=MiB
	@$(MAKE) --no-print-directory build ramdisk image
	@demo/run

.PHONY: test
test: packages ## all tests
	@export REQUIRE=root,vm; $(MAKE) --no-print-directory check test-fuzz test-root test-vm test-ironic test-demo

.PHONY: check
check: ## format, vet, static analysis, import table, generated files, unit tests; no root
	@echo "== gofmt, vet, staticcheck"
	@bad=$$($(dir $(TOOLCHAIN))gofmt -l $$(git ls-files -co --exclude-standard '*.go' | grep -v /testdata/)); if [ -n "$$bad" ]; then echo "not formatted:" $$bad; exit 1; fi
	@$(GO) vet ./...
	@GOOS=darwin $(GO) vet ./inspect/... ./stream/... ./image/... ./netconfig/... ./agent/ironic/... ./steps/...
	@$(GO) tool staticcheck ./...
	@$(MAKE) --no-print-directory unit

.PHONY: unit
unit: ## unit tests: Go, any computer, seconds
	@echo "== unit tests"; $(GO) test -skip '^(TestRoot|TestVM|TestIronic)' ./...

.PHONY: test-root
test-root: packages ## tests on loop devices and network namespaces; root
	@echo "== root tests"; REQUIRE=root $(GO) test -count=1 -p 2 -timeout 20m -run 'TestRoot' ./...

.PHONY: test-vm
test-vm: packages ramdisk ramdisk-burnin image iso ## tests of the real ramdisk in virtual machines
	@echo "== virtual machine tests"; REQUIRE=root,vm $(GO) test -count=1 -p 2 -timeout 60m -run 'TestVM' ./...

.PHONY: test-long
test-long: packages ramdisk ramdisk-burnin image ## a loss of power at each operation, systems on volumes and arrays of all levels, a Debian from a swarm, a whole burn-in: more than an hour
	@LONG=1 REQUIRE=root,vm $(GO) test -count=1 -timeout 90m -run 'TestVMVolumesKilled|TestVMVolumeWriteKilled|TestVMRaid' ./steps/lvm ./steps/raid ./steps/generic
	@LONG=1 REQUIRE=root,vm $(GO) test -count=1 -timeout 90m -parallel 2 -run 'TestVMDeployOnVolume$$|TestVMDeployOnArrayLevels$$|TestVMStickQuick$$|TestVMBurnInCD$$|TestVMSwarm$$' ./initramfs

.PHONY: test-demo
test-demo: packages build ramdisk image ## the demo under each firmware, with other media, NICs and hand-offs
	@for how in "FIRMWARE=uefi HANDOFF=reboot" "FIRMWARE=secureboot MEDIUM=usb MEMORY=512" "FIRMWARE=bios HANDOFF=reboot NIC=e1000e MEDIUM=cd"; do \
		echo "== demo $$how"; env $$how LIMIT=900 demo/run; done

.PHONY: test-ironic
test-ironic: packages ramdisk image ## the real ramdisk, driven by a real Ironic of Debian's packages
	@scripts/packages packages-ironic.txt
	@echo "== tests with a real Ironic"; REQUIRE=root,vm,ironic $(GO) test -count=1 -p 1 -timeout 40m -v -run '^TestIronic' ./agent/interop

.PHONY: test-fuzz
test-fuzz: packages ## what reads images and all that is fetched with them, a minute for each fuzz target
	@echo "== fuzzing"; scripts/fuzz 60s ./image/qcow2 FuzzDecode $(foreach t,Decompress Gzip Zstd XZ Bzip2 LZ4 ParseChecksums ContentRange Signature PublicKeys Manifest RegistryAnswers,./stream Fuzz$(t)) $(foreach t,Metainfo Magnet TrackerAnswer,./torrent Fuzz$(t))

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (20s)
	@scripts/fuzz $(or $(FUZZTIME),20s)

.PHONY: bench
bench: packages $(B)/ironhand $(B)/lossylink $(B)/cut ## compare with Debian's programs; SIZE=MiB of the image (4096), ROUNDS (3), quiet cores
	@scripts/packages packages-bench.txt
	@scripts/bench $(B)/ironhand $(SIZE) $(ROUNDS)

.PHONY: bench-swarm
bench-swarm: packages $(B)/ironhand $(B)/track ## one image to 1 to 16 nodes by BitTorrent and by HTTP, the uplink limited; SIZE=MiB (256), ZEROS=percent (0), UP=MiB/s (10), NODES, HTTP, PACKED, ROUNDS, PLOT=file; quarter of an hour, quiet cores, root
	@scripts/packages packages-bench.txt
	@scripts/bench-swarm $(B)/ironhand

.PHONY: bench-burnin
bench-burnin: packages ## what watching costs, and fio under it against fio alone, in pairs; ROUNDS (5), SECONDS each (10), quiet cores, root
	@GO="$(TOOLCHAIN)" scripts/bench-burnin $(or $(ROUNDS),5) $(or $(SECONDS),10)

.PHONY: generate
generate: ## write the files in docs/ that are made from the program's own lists
	@$(GO) test ./agent -run TestDocs -update >/dev/null; $(GO) test ./inspect -run TestSchemas -update >/dev/null; $(GO) test ./steps/burnin -run TestDocs -update >/dev/null; echo "docs/ written"

.PHONY: packages
packages: ## install the Debian packages of packages.txt that are missing
	@scripts/packages

.PHONY: build
build: $(B)/ironhand $(B)/mkramdisk $(B)/labconductor ## the three programs, static

$(B)/ironhand $(B)/mkramdisk $(B)/labconductor: $(SOURCES)
	@mkdir -p $(B); echo "building $@"
	@GOFIPS140=v1.0.0 $(GO) build $(BUILD_FLAGS) $(if $(filter %/ironhand,$@),$(AGENT_FLAGS)) -o $@ ./cmd/$(@F)

$(B)/lossylink $(B)/cut $(B)/track: $(wildcard tools/*/*.go torrent/*.go) go.mod
	@mkdir -p $(B); $(GO) build -o $@ ./tools/$(@F)

.PHONY: kernel
kernel: $(B)/kernel/.complete

$(B)/kernel/.complete: scripts/kernel
	@rm -f $@; scripts/kernel $(B)/kernel; touch $@

$(B)/vmlinux: $(B)/kernel/.complete $(B)/mkramdisk
	@$(B)/mkramdisk vmlinux $(B)/kernel/vmlinuz $@

.PHONY: ramdisk
ramdisk: $(B)/initramfs.cpio.zst $(B)/initramfs-virtual.cpio $(B)/vmlinux ## the initramfs for servers, and the small one of the tests

.PHONY: ramdisk-burnin
ramdisk-burnin: $(B)/initramfs-burnin.cpio.zst ## the initramfs with the programs for burn-in

$(B)/initramfs.cpio.zst: $(B)/ironhand $(B)/mkramdisk $(B)/kernel/.complete
	@$(B)/mkramdisk initramfs --agent $(B)/ironhand --modules $(B)/kernel/modules/ --set server --compress best --out $@

$(B)/initramfs-burnin.cpio.zst: $(B)/ironhand $(B)/mkramdisk $(B)/kernel/.complete
	@$(B)/mkramdisk initramfs --role burnin --agent $(B)/ironhand --modules $(B)/kernel/modules/ --set server --compress best --out $@

$(B)/initramfs-virtual.cpio: $(B)/ironhand $(B)/mkramdisk $(B)/kernel/.complete
	@$(B)/mkramdisk initramfs --agent $(B)/ironhand --modules $(B)/kernel/modules/ --set virtual --compress none --out $@

.PHONY: iso
iso: $(B)/ironhand.iso ## one ISO that boots every node: UEFI, Secure Boot, BIOS

$(B)/ironhand.iso: $(B)/initramfs.cpio.zst $(B)/mkramdisk
	@$(B)/mkramdisk iso --kernel $(B)/kernel/vmlinuz --initramfs $(B)/initramfs.cpio.zst --out $@

.PHONY: uki
uki: $(B)/ironhand.efi ## the same as one EFI program, for UEFI HTTP boot and boot entries

$(B)/ironhand.efi: $(B)/initramfs.cpio.zst $(B)/mkramdisk
	@$(B)/mkramdisk uki --kernel $(B)/kernel/vmlinuz --initramfs $(B)/initramfs.cpio.zst --out $@

.PHONY: iso-burnin
iso-burnin: $(B)/ironhand-burnin.iso ## a stick that starts into the menu of burn-in: dd it to a USB stick, or use it as a CD

$(B)/ironhand-burnin.iso: $(B)/initramfs-burnin.cpio.zst $(B)/mkramdisk
	@$(B)/mkramdisk iso --role burnin --kernel $(B)/kernel/vmlinuz --initramfs $(B)/initramfs-burnin.cpio.zst --out $@

.PHONY: image
image: $(B)/image/debian.img.zst $(B)/image/debian-raid.img.zst ## the operating system images of the demo and the tests, from real Debian

$(B)/image/debian.img.zst: $(wildcard demo/image/*) $(wildcard demo/image/files/*)
	@demo/image/build $(B)/image

$(B)/image/debian-raid.img.zst: $(wildcard demo/image/*) $(wildcard demo/image/files/*)
	@demo/image/build $(B)/image raid

.PHONY: clean
clean: ## remove what was built; the kernel and the operating system image stay
	@rm -rf $(B)/ironhand* $(B)/mkramdisk $(B)/labconductor $(B)/initramfs* $(B)/vmlinux
