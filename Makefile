# `make help` lists what can be done. Everything that needs root says so; where sudo is absent, be root.

# The system's Python: only it sees the compiler binding, python3-bpfcc, which PyPI does not have.
PYTHON ?= /usr/bin/python3
VENV := .venv
PY := $(VENV)/bin/python
C_SOURCES := $(wildcard bpf/*.c bpf/*.h bpf/lib/*.h bpf/include/*/*.h bpf/include/*/*/*.h)

RUN_PACKAGES := python3 python3-venv python3-bpfcc linux-libc-dev libc6-dev
LAB_PACKAGES := iproute2 util-linux dnsmasq-base docker-registry skopeo containerd ca-certificates
TEST_PACKAGES := gcc musl-tools libc-ares-dev bind9-dnsutils curl iptables tinyproxy-bin procps \
	containernetworking-plugins systemd
BENCH_PACKAGES := dnsperf nftables
LINT_PACKAGES := vagrant
KERNEL_PACKAGES := qemu-system-x86
ENGINE_PACKAGES := debian-archive-keyring patch binutils
DEB_PACKAGES := build-essential debhelper python3-venv python3-cryptography python3-dnspython python3-docker \
	python3-grpcio python3-idna python3-openssl python3-prometheus-client python3-protobuf python3-pydantic \
	python3-pyroute2 python3-requests python3-yaml
PACKAGE_PACKAGES := debian-archive-keyring debootstrap util-linux

# Of soak.
MINUTES ?= 60

# Of install and uninstall; packaging/install.sh says what goes where.
PREFIX ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help demo run test unit lint format test-kernel test-engines test-package test-faults soak refusals bench install uninstall deb clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

# Made again when the dependencies change. Owned by whoever called sudo, so that plain make works later.
$(VENV)/.ready: pyproject.toml
	@packaging/require.sh $(RUN_PACKAGES)
	@echo "preparing $(VENV)"
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
	@[ -z "$${SUDO_UID:-}" ] || chown -R "$$SUDO_UID:$${SUDO_GID:-$$SUDO_UID}" $(VENV)

demo: $(VENV)/.ready ## show the main job on a lab of network namespaces (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES)
	@$(PY) -m tests.lab.demo

run: $(VENV)/.ready ## enforce the default policy on the container engines of this host (root)
	@packaging/require.sh $(RUN_PACKAGES)
	@$(PY) -m ram_ebpf run $(ARGS)

test: $(VENV)/.ready ## run all tests (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES) $(TEST_PACKAGES)
	@$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

unit: $(VENV)/.ready ## run the tests that need neither root nor a kernel
	@packaging/require.sh $(TEST_PACKAGES)
	@$(PY) -m pytest tests/unit $(ARGS)

lint: $(VENV)/.ready ## check style and types, and the lab VMs' description
	@packaging/require.sh $(LINT_PACKAGES)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/clang-format --dry-run -Werror $(C_SOURCES)
	@VAGRANT_CWD=vagrant VAGRANT_HOME=$(CURDIR)/$(VENV)/vagrant VAGRANT_DOTFILE_PATH=$(CURDIR)/$(VENV)/vagrant \
		VAGRANT_CHECKPOINT_DISABLE=1 vagrant validate --ignore-provider >/dev/null

format: $(VENV)/.ready ## put the sources into the house style
	@$(VENV)/bin/ruff check --fix --quiet .
	@$(VENV)/bin/ruff format --quiet .
	@$(VENV)/bin/clang-format -i $(C_SOURCES)

test-kernel: $(VENV)/.ready ## run the kernel tests in a QEMU guest: KERNEL=path/to/bzImage (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES) $(TEST_PACKAGES) $(KERNEL_PACKAGES)
	@[ -n "$(KERNEL)" ] || { echo "say which: make test-kernel KERNEL=path/to/bzImage" >&2; exit 2; }
	@$(PY) -m tests.kernels.run "$(KERNEL)"

test-engines: $(VENV)/.ready ## run the tests with real engines of three Debian releases, 1 GB of downloads (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES) $(TEST_PACKAGES) $(ENGINE_PACKAGES)
	@$(PY) -m tests.engines.prepare
	@$(PY) -m pytest tests/engines $(ARGS)

test-faults: $(VENV)/.ready ## kill, starve, fill up and upgrade the daemon under traffic, each case in its long form (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES) $(TEST_PACKAGES)
	@$(PY) -m pytest tests/faults --long $(ARGS)

soak: $(VENV)/.ready ## all of these mixed for MINUTES=60, and whether memory stays as it is (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES) $(TEST_PACKAGES)
	@$(PY) -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

refusals: $(VENV)/.ready ## have real engines be refused, and write what each prints into docs/refusals.md (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES) $(TEST_PACKAGES) $(ENGINE_PACKAGES)
	@$(PY) -m tests.engines.prepare
	@$(PY) -m tests.engines.refusals $(ARGS)

bench: $(VENV)/.ready ## measure what it costs beside nothing and nftables, in nine minutes (root)
	@packaging/require.sh $(RUN_PACKAGES) $(LAB_PACKAGES) $(TEST_PACKAGES) $(BENCH_PACKAGES)
	@$(PY) -m benchmarks $(ARGS)

install: ## install into PREFIX, /usr/local, with a unit for systemd (root)
	@[ -n "$(DESTDIR)" ] || packaging/require.sh $(RUN_PACKAGES)
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" packaging/install.sh install

uninstall: ## remove that again, and whatever is still enforced; keeps the policy (root)
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" packaging/install.sh uninstall

deb: ## build the Debian package for the release that this runs on, into dist/
	@packaging/require.sh $(DEB_PACKAGES)
	@packaging/deb.sh

test-package: $(VENV)/.ready ## build, install, boot and purge the package in Debian 12 and 13, with downloads (root)
	@packaging/require.sh $(PACKAGE_PACKAGES)
	@$(PY) -m tests.package.prepare
	@$(PY) -m pytest tests/package $(ARGS)

clean: ## remove what building and testing left in this tree
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
