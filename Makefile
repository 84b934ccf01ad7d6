# Two commands matter: `make demo` and `make test`. Each installs what it lacks.

PYTHON  ?= python3
VENV    ?= .venv
INSTALL ?= editable
SHELL   := /bin/bash
BIN      = $(VENV)/bin
STAMP    = $(VENV)/.installed-$(INSTALL)

.PHONY: help demo test lint types unit format protos clean
.PHONY: bench bench-ingest bench-codec bench-receive bench-connections bench-small
.PHONY: crash powercut simulate soak hostile nth fuzz mutants coverage
.PHONY: guest-image guest-tests power-cuts

help:            ## show what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(STAMP)   ## upload real data to a uringd of its own, compare it, show what it gained
	$(BIN)/python -I bench/demo.py

test: lint types unit  ## lint, types and all tests

lint: $(STAMP)   ## ruff, buf and hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd protos && $(abspath $(BIN))/buf lint
	@if tag=$$(git describe --tags --abbrev=0 2>/dev/null); then \
		cd protos && $(abspath $(BIN))/buf breaking --against "../.git#tag=$$tag,subdir=protos"; \
	else echo "buf breaking: no tag yet, nothing to break"; fi
	$(BIN)/hadolint docker/Dockerfile

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

unit: $(STAMP)   ## the tests
	$(BIN)/python -Im pytest -n 2 $(TESTS)

bench: $(STAMP)  ## the figures of bench/README.md on your own disk (QUICK=1 for a short look)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -I bench/run.py $(if $(QUICK),--quick)

bench-ingest: $(STAMP)  ## uploads to uringd beside nginx, rsync, Starlette and tus (QUICK=1)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -I bench/ingest.py $(if $(QUICK),--quick)

crash: $(STAMP)  ## kill and cut at random, ROUNDS=1000 or SECONDS=600 (KILLS=n: only kill; SEED=n, WORKERS=n)
	$(BIN)/python -I tests/crash/crash.py $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(KILLS),--kills $(KILLS)) $(if $(WORKERS),--workers $(WORKERS))

powercut: $(STAMP)  ## cut the power at every flush of FS=ext4|xfs|btrfs for SECONDS=600 (SEED=n, IMAGES=n)
	$(BIN)/python -I tests/powercut/powercut.py $(if $(FS),--kind $(FS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(IMAGES),--images $(IMAGES))

mutants: $(STAMP) ## make each line of the durability path wrong in turn: every time a test must notice
	$(BIN)/python -I tests/mutation/gate.py $(if $(NAME),--name $(NAME))

nth: $(STAMP)    ## every operation of an upload x every error x once and for ever (KIND="ring FSYNC")
	$(BIN)/python -I tests/nth/run.py $(if $(KIND),--kind "$(KIND)")

coverage: $(STAMP)  ## every branch of the commit path, Python and C, is taken by a test
	.ci/system-packages gcov=gcc strace=strace setpriv=util-linux mkfs.ext4=e2fsprogs \
		mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs
	$(BIN)/python -I tests/coverage/measure.py

simulate: $(STAMP)  ## the daemon in a simulation, SECONDS=60 or SEEDS=n from SEED=n on (JOBS=2 JSON=file), or one SEED=n
	$(BIN)/python -I tests/simulation/simulate.py $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(JOBS),--jobs $(JOBS)) $(if $(JSON),--json $(JSON)) \
		$(if $(CLIENTS),--clients $(CLIENTS)) \
		$(if $(DISTURBANCES),--disturbances $(DISTURBANCES)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(NETWORK),--network $(NETWORK))

GUEST = .ci/system-packages qemu-system-x86_64=qemu-system-x86 debootstrap=debootstrap cpio=cpio zstd=zstd

guest-image: $(STAMP)  ## a kernel of Debian's (KERNEL=6.1) and a userland with this project, for qemu
	$(GUEST)
	$(BIN)/python -I tests/guest/build.py $(if $(KERNEL),--kernel $(KERNEL))

guest-tests: guest-image  ## the core of the tests on that kernel, under qemu (KERNEL=6.1 FS=ext4)
	$(BIN)/python -I tests/guest/suite.py $(if $(KERNEL),--kernel $(KERNEL)) $(if $(FS),--fs $(FS))

power-cuts: guest-image  ## cut its power while it takes uploads (CUTS=100 KERNEL=6.1 FS=ext4 SEED=n)
	$(BIN)/python -I tests/guest/power.py $(if $(CUTS),--cuts $(CUTS)) \
		$(if $(KERNEL),--kernel $(KERNEL)) $(if $(FS),--fs $(FS)) $(if $(SEED),--seed $(SEED))

hostile: $(STAMP)  ## hostile clients, with CONNECTIONS=10000 of them at once
	URINGD_TEST_CONNECTIONS=$(or $(CONNECTIONS),10000) $(BIN)/python -Im pytest tests/uringd/hostile

soak: $(STAMP)   ## everything at once for SECONDS=3600, and what the server holds meanwhile (SEED=n)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	mkdir -p bench/results
	$(BIN)/python -I tests/soak/soak.py $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(SEED),--seed $(SEED)) --json bench/results/soak.json --plot bench/results/soak.svg

bench-codec: $(STAMP)  ## how many frames and headers a second the codec alone can do
	$(BIN)/python -I bench/codec.py

bench-receive: $(STAMP)  ## what it costs to receive chunks into slots, in several ways (QUICK=1)
	$(BIN)/python -I bench/receive.py $(if $(QUICK),--quick)

bench-connections: $(STAMP)  ## many connections: throughput, memory, patience (QUICK=1)
	$(BIN)/python -I bench/connections.py $(if $(QUICK),--quick)

bench-small: $(STAMP)  ## how many small files a second can be published, in which way (ROUNDS=5)
	$(BIN)/python -I bench/small.py $(if $(ROUNDS),--rounds $(ROUNDS))

fuzz: $(VENV)/.installed-fuzz  ## fuzz every decoder for SECONDS=60 each (TARGET=name for one)
	$(BIN)/python -I tests/fuzz/run.py --seconds $(or $(SECONDS),60) $(TARGET)

format: $(STAMP) ## let ruff lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(STAMP) ## generate the Protocol Buffers module again
	$(BIN)/python -I protos/generate.py

clean:           ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	rm -f uringio/_binding/*.so uringio/_binding/_liburing.c uringio/_binding/*.o

# The system's part (a C compiler, liburing's header, Python's venv), then ours.
$(STAMP): pyproject.toml setup.py $(wildcard uringio/_binding/*.txt uringio/_binding/*.c uringio/_binding/build.py)
	@PYTHON=$(PYTHON) .ci/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifeq ($(INSTALL),wheel)
	$(BIN)/python -m pip install --quiet build
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m pip install --quiet "$$(echo dist/*.whl)[dev]"
else
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
endif
	@touch $@

# atheris, which only fuzzing needs.
$(VENV)/.installed-fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@touch $@
