# make report, make test: the two commands of a newcomer. Both install what they need into .venv first.
PYTHON ?= python3
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# What of pyproject.toml's extras to install; dev,triton,zoo (a gigabyte more) also tests Triton, JAX and ONNX Runtime.
EXTRAS ?= dev
BIN := .venv/bin
INSTALLED := .venv/installed-$(EXTRAS)
# SHORT=1: a share of what the long programs do, as .ci/run takes it. Each says with --help which share.
SHARE_OF_IT := $(if $(SHORT),--short)

.PHONY: report test test-all check lint types wheel bench gpu score honest everyday claims soak clean

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

report: $(INSTALLED)
	$(BIN)/softmax-suite run --profile smoke --direction both

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --direction both

# Every mutant, honest kernel, format and kill, of which make test takes a share by the commit.
test-all:
	SHARE=all $(MAKE) test

check: lint types test wheel

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

# The wheel works in a bare environment outside the checkout: beside it, pytest would find this project's configuration.
wheel: $(INSTALLED)
	set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	$(BIN)/python -m pip wheel -q --no-deps -w "$$place" .; \
	$(PYTHON) -m venv "$$place/venv"; \
	"$$place"/venv/bin/python -m pip install -q -c constraints.txt "$$place"/*.whl; \
	cd "$$place"; \
	venv/bin/softmax-suite run --profile smoke --op softmax --kernel shifted --out run; \
	venv/bin/python -m pytest -q -p suite.plugin --pyargs suite.cases --op logsumexp --kernel online --dtype bfloat16

# Numbers that the README and the docs quote.
bench: $(INSTALLED)
	$(BIN)/python -m pytest -q tests/benchmarks/bench_oracle.py tests/benchmarks/bench_attention.py $(if $(SHORT),--benchmark-disable,--benchmark-enable --benchmark-only)
	$(BIN)/python -m tests.benchmarks.timers $(SHARE_OF_IT)
	$(BIN)/python -m tests.benchmarks.cpu_goals $(SHARE_OF_IT)

# All that a GPU is needed for (docs/gpu.md): make gpu EXTRAS=dev,triton, with ARGUMENTS such as --references FILE.
gpu: $(INSTALLED)
	$(BIN)/softmax-suite gpu-run --out runs/gpu-$$(date +%Y-%m-%d-%H%M%S) $(ARGUMENTS)

score: $(INSTALLED)
	$(BIN)/python -m tests.mutants $(SHARE_OF_IT)

honest: $(INSTALLED)
	$(BIN)/python -m tests.honest $(SHARE_OF_IT)
	$(BIN)/python -m tests.honest --direction backward $(SHARE_OF_IT)

# The table of everyday checks in the README.
everyday: $(INSTALLED)
	$(BIN)/python -m tests.everyday_checks

# What the suite survives, with its numbers: some 25 minutes. Each program ends with 1 where a number is missed.
soak: $(INSTALLED)
	$(BIN)/python -m tests.soak.isolation $(SHARE_OF_IT)
	$(BIN)/python -m tests.soak.shards $(SHARE_OF_IT)
	$(BIN)/python -m tests.soak.faults $(SHARE_OF_IT)
	$(BIN)/python -m tests.soak.kills $(SHARE_OF_IT)
	$(BIN)/python -m tests.soak.fuzz $(SHARE_OF_IT)

# The table of docs/published-results.md.
claims: $(INSTALLED)
	$(BIN)/softmax-suite claims

clean:
	rm -rf .venv runs
