GO ?= go
DIST ?= dist
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build nightly test vet lint bench-signing bench-publish fuzz-signing clean

# The example programs, in bin/.
build:
	$(GO) build -o bin/ ./examples/...

# The main job: builds, tests, signs and publishes the images of
# examples/nightly/nightly.yaml into $(DIST). FORCE=1 releases unchanged ones too,
# MIRROR=URL names the Debian mirror where apt does not (on Ubuntu).
nightly:
	.ci/install nightly
	$(GO) build -o bin/ ./examples/nightly
	bin/nightly -config examples/nightly/nightly.yaml -out $(DIST) $(if $(FORCE),-force) $(if $(MIRROR),-mirror $(MIRROR))

# All tests, with the real tools: about half an hour on two cores without KVM.
test:
	.ci/install test
	$(GO) test -timeout 80m ./...

vet:
	$(GO) vet ./...

lint:
	$(GO) run $(GOLANGCI) run

# Ours and the peers in turns on the same files; ratios of medians.
bench-signing: build
	$(GO) run ./signing/internal/bench -program bin/signing

bench-publish:
	$(GO) test ./publish/directory -run XXX -bench Push -benchtime 7x

fuzz-signing:
	for f in FuzzVerify FuzzKeyring FuzzSums FuzzAgentAnswer; do \
		$(GO) test -run XXX -fuzz "^$$f\$$" -fuzztime 30s -fuzzminimizetime 20x ./signing || exit 1; done

clean:
	rm -rf bin
