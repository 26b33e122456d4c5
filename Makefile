# `make demo` shows it, `make test` checks it. Both work on a fresh Debian 12 with a Rust toolchain, as root.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(CACHE)/stack/target
export STACK_TOOLS ?= $(CACHE)/stack-tools
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := $(CARGO_TARGET_DIR)/$(HOST)/release/stack

.PHONY: build demo dist test behaviour bench soak fuzz vm

build:
	cargo build --release --locked

# The quickstart: up, a look at the page, down again.
demo: build
	@STACK=$(RELEASE) examples/demo.sh

# Everything that has to hold before a change is good.
test:
	@tests/run.sh

# What a release consists of: the binary, a Debian package, checksums.
dist: build
	@STACK=$(RELEASE) packaging/dist.sh $(CARGO_TARGET_DIR)/dist

# Every case of the behaviour suite, those that are known not to pass yet too.
behaviour: build
	@STACK=$(RELEASE) tests/behaviour.sh --all

# Side by side with docker compose, in one run.
bench: build
	@STACK=$(RELEASE) benches/compose.sh
	@STACK=$(RELEASE) benches/images.sh
	cargo bench --locked --bench planning

# Stack files, .env, interpolation, ports, mounts and units: mutants for FUZZ_SECONDS per target, each time others.
fuzz:
	FUZZ_SECONDS=$${FUZZ_SECONDS:-300} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} cargo test --locked --release --lib spec::fuzz -- --nocapture

# On the kernel and control groups (v2) that most users have, Debian 12's 6.1, in an emulated machine. Before a release.
vm:
	ci/vm/run.sh

# Long runs: the tests that are left out of `make test` for their length.
soak: vm
	cargo test --locked --test it -- --ignored --nocapture --test-threads 1
