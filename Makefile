GO ?= go
DIST ?= dist
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build nightly test vet lint bench-qcow2 bench-signing bench-publish bench-testsuite bench-website screenshot spoil fuzz mutations schema clean

# The example programs, in bin/.
build:
	$(GO) build -o bin/ ./examples/...

# The main job: builds, tests, signs and publishes the images of
# examples/nightly/nightly.yaml into $(DIST). FORCE=1 releases unchanged ones too,
# MIRROR=URL names the Debian mirror where apt does not (on Ubuntu).
nightly:
	.ci/install nightly
	$(GO) build -o bin/ ./examples/nightly
	bin/nightly -config examples/nightly/nightly.yaml -out $(DIST) -site $(DIST)/site $(if $(FORCE),-force) $(if $(MIRROR),-mirror $(MIRROR))

# All tests, with the real tools: about three quarters of an hour on two cores without KVM.
test:
	.ci/install test
	$(GO) test -timeout 80m ./...

vet:
	$(GO) vet ./...

lint:
	$(GO) run $(GOLANGCI) run

# Ours and the peers in turns on the same files; ratios of medians.
bench-qcow2: build
	$(GO) run ./qcow2/internal/benchqcow2 -bin bin/qcow2 -rounds 5

bench-signing: build
	$(GO) run ./signing/internal/bench -program bin/signing

bench-publish:
	$(GO) test ./publish/directory -run XXX -bench Push -benchtime 7x
	$(GO) test ./publish/web -run XXX -bench Fetch -benchtime 7x
	$(GO) test ./publish/obs -run XXX -bench Push -benchtime 5x -timeout 30m
	IMAGEFACTORY_BENCH_MIB=2048 $(GO) test ./publish/glance -run XXX -bench Upload -benchtime 3x -timeout 30m

# 60 images with 30 releases: a whole site, and again after one new release.
bench-website:
	$(GO) test ./publish/website -run XXX -bench Write -benchtime 3x -timeout 60m

# The picture of the website in the README.
screenshot:
	$(GO) test ./examples/website -run TestPagesInBrowser -count=1 -screenshot $(CURDIR)/docs/website.png

bench-testsuite:
	$(GO) run ./testsuite/internal/bench -rounds 5

# Breaks a running guest in all the ways of internal/spoil/table: IMAGE=FILE is the
# image to boot, TABLE=sshd tries one file, SPOIL=REGEXP the rows that are tried, each
# alone; else all, in batches.
spoil:
	IMAGEFACTORY_TEST_IMAGE=$(IMAGE) $(GO) test ./internal/spoil -v -timeout 5h -run 'TestLive|TestDisk' $(if $(TABLE),-table '$(TABLE)') $(if $(SPOIL),-spoil '$(SPOIL)')

# Half a minute for each parser. Without the limit Go's minimizer takes it all.
fuzz:
	for package in $$($(GO) list ./...); do \
	    for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
	        $(GO) test -run XXX -fuzz "^$$target\$$" -fuzztime 30s -fuzzminimizetime 5x $$package || exit 1; \
	    done; done

# 10,000 mutated images and streams against qemu-img, and the program's memory on as
# many: about half an hour. The seeds are from the clock and printed.
mutations:
	$(GO) test ./qcow2 -run 'TestVerdicts|TestStreams' -timeout 60m -v -mutations 10000
	$(GO) test ./examples/qcow2 -run TestMutations -timeout 2h -v -mutations 10000

# The schema of definition files, from the Go types.
schema:
	$(GO) test ./imagefactory -run TestSchema -update

clean:
	rm -rf bin
