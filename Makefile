# make report, make test: the two commands of a newcomer. Both install what they need into .venv first.
PYTHON ?= python3
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# What of pyproject.toml's extras to install; dev,triton,zoo (a gigabyte more) also tests Triton, JAX and ONNX Runtime.
EXTRAS ?= dev
BIN := .venv/bin

.PHONY: report test check lint types wheel bench gpu score honest everyday claims soak clean

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

report: .venv/installed
	$(BIN)/softmax-suite run --profile smoke --direction both

test: .venv/installed
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --direction both

check: lint types test wheel

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

# The wheel works in a bare environment outside the checkout: beside it, pytest would find this project's configuration.
wheel: .venv/installed
	set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	$(BIN)/python -m pip wheel -q --no-deps -w "$$place" .; \
	$(PYTHON) -m venv "$$place/venv"; \
	"$$place"/venv/bin/python -m pip install -q -c constraints.txt "$$place"/*.whl; \
	cd "$$place"; \
	venv/bin/softmax-suite run --profile smoke --op softmax --kernel shifted --out run; \
	venv/bin/python -m pytest -q -p suite.plugin --pyargs suite.cases --op logsumexp --kernel online --dtype bfloat16

# Numbers that the README and the docs quote.
bench: .venv/installed
	$(BIN)/python -m pytest -q tests/benchmarks/bench_oracle.py tests/benchmarks/bench_attention.py --benchmark-enable --benchmark-only
	$(BIN)/python -m tests.benchmarks.timers
	$(BIN)/python -m tests.benchmarks.cpu_goals

# All that a GPU is needed for (docs/gpu.md): make gpu EXTRAS=dev,triton, with ARGUMENTS such as --references FILE.
gpu: .venv/installed
	$(BIN)/softmax-suite gpu-run --out runs/gpu-$$(date +%Y-%m-%d-%H%M%S) $(ARGUMENTS)

score: .venv/installed
	$(BIN)/python -m tests.mutants
	$(BIN)/python -m tests.mutants --direction backward

honest: .venv/installed
	$(BIN)/python -m tests.honest
	$(BIN)/python -m tests.honest --direction backward

# The table of everyday checks in the README.
everyday: .venv/installed
	$(BIN)/python -m tests.everyday_checks

# What the suite survives, with its numbers: some 25 minutes. Each program ends with 1 where a number is missed.
soak: .venv/installed
	$(BIN)/python -m tests.soak.isolation
	$(BIN)/python -m tests.soak.shards
	$(BIN)/python -m tests.soak.faults
	$(BIN)/python -m tests.soak.kills
	$(BIN)/python -m tests.soak.fuzz

# The table of docs/published-results.md.
claims: .venv/installed
	$(BIN)/softmax-suite claims

clean:
	rm -rf .venv runs
