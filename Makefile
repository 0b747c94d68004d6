# Each target does its own set-up, in .venv, once; it is redone when pyproject.toml or constraints.txt change.

# The interpreter that .venv is made with.
PYTHON ?= python3
# cuda or tpu; empty is the CPU.
ACCELERATOR ?=

ifneq ($(filter-out cuda tpu,$(ACCELERATOR)),)
$(error ACCELERATOR=$(ACCELERATOR): there are cuda and tpu; leave it out for the CPU)
endif

# With huge pages a step on a CPU spends less time on getting its memory page by page; the README says how much.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: train test test-slow lint clean

train: .venv/installed$(addprefix -,$(ACCELERATOR))
	$(BIN)/transformer-jax train experiments/numerals.py --workdir runs/numerals

test: .venv/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# With the TPU compiler, which needs no TPU.
test-slow: .venv/installed-dev .venv/installed-tpu
	$(BIN)/pytest -n 2 -m slow

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist *.egg-info

.venv/installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) .
	touch $@

.venv/installed-%: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) '.[$*]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is missing or older than Python 3.11; name a newer one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
