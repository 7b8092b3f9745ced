# Two commands (docs/architecture.md): `make demo` and `make test`. Both set up what they need, say what
# they install, ask nothing, and start at once when there is nothing to set up.
.NOTPARALLEL:
.PHONY: help setup demo test interop check coverage fuzz scenarios mutants model tsan asan bench bench-plot build clean

PYTHON := .venv/bin/python
ARGS ?=
# Tests of one file stay together, so that they share what is costly to set up.
WORKERS ?= -n 2 --dist loadfile

help:
	@echo "make demo    two hosts in network namespaces find each other by name and move a file (as root)"
	@echo "make test    all tests, real peers included (as root); ARGS='-k name' picks some, WORKERS= runs them one by one"
	@echo "make interop the part of the tests against a stock strongSwan (as root)"
	@echo "make check   lint, format, types, layering"
	@echo "make coverage  lines of keys/ that the tests reach; fails below 95 %"
	@echo "make fuzz    every parser and whole sessions, guided by coverage; ARGS='--inputs 10000000' or '--seconds 60 session'"
	@echo "make scenarios  random moves, reboots and restarts in the simulator; ARGS='--seeds 10000', or '--seed 17' to see one"
	@echo "make mutants how many small wrongs in codecs, windows and mobility the tests find"
	@echo "make model   every state of the binding machines up to a depth; ARGS='--depth 5 loss'"
	@echo "make tsan    tables changed under full traffic, with the native engine under ThreadSanitizer"
	@echo "make asan    hostile packets, with the native engine under AddressSanitizer"
	@echo "make bench   how fast, as ratios to every other VPN that can be installed (as root; a quarter of an hour)"
	@echo "make bench-plot  draws what it saved"
	@echo "make build   the native modules, after an edit of a .pyx"
	@echo "make setup   all that the above need, nothing else"
	@echo "make clean   removes all that was built, the virtual environment too"

setup:
	@scripts/setup test

demo:
	@scripts/setup demo
	@$(PYTHON) -m tunnel demo $(ARGS)

test:
	@scripts/setup test
	$(PYTHON) -m pytest $(WORKERS) $(ARGS)

interop:
	@scripts/setup test
	$(PYTHON) -m pytest $(WORKERS) tests/interop $(ARGS)

check:
	@scripts/setup check
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

coverage:
	@scripts/setup quality
	$(PYTHON) -m pytest $(WORKERS) -q --cov=keys --cov-report=term-missing:skip-covered --cov-fail-under=95 \
		tests/keys tests/fuzz/test_fuzz_certificates.py tests/fuzz/test_fuzz_guided.py tests/fuzz/test_fuzz_ike.py \
		tests/fuzz/test_fuzz_ike_extensions.py tests/fuzz/test_fuzz_invitation.py $(ARGS)

fuzz:
	@scripts/setup fuzz
	@nice -n 19 $(PYTHON) -m tests.guided $(ARGS)

scenarios:
	@scripts/setup demo
	@nice -n 19 $(PYTHON) -m tests.sim.scenarios $(ARGS)

mutants:
	@scripts/setup quality
	@nice -n 19 scripts/mutants $(ARGS)

model:
	@scripts/setup build
	@nice -n 19 $(PYTHON) -m tests.model $(ARGS)

# The others are installed where the distribution has them. WIREGUARD_GO=/path names one more wireguard-go.
tsan:
	@scripts/setup test
	$(PYTHON) -m tests.stress.tsan --blind --seconds 5
	$(PYTHON) -m tests.stress.tsan $(ARGS)

asan:
	@scripts/setup test
	$(PYTHON) -m tests.stress.asan $(ARGS)

bench:
	@scripts/setup bench
	@$(PYTHON) -m bench --save $(ARGS)

bench-plot:
	@scripts/setup bench
	@$(PYTHON) -m bench plot

build:
	@scripts/setup build

clean:
	rm -rf .venv .setup .fuzz .mutants .coverage build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find fastpath -name '*.so' -delete
	for source in fastpath/*.pyx; do rm -f "$${source%.pyx}.c" "$${source%.pyx}.html"; done
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
