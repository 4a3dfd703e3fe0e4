# For a person at a shell. Windows: README.md has the same commands without make.
PYTHON ?= python3
PRESET ?= cpu
EXPERIMENTS ?= 12
# Two workers also on larger machines: a trial's own threads take the cores.
WORKERS ?= 2
BIN := .venv/bin
# Only `make setup` itself says how to have the command if there was nothing to install.
QUIET := --quiet

.DEFAULT_GOAL := help
.PHONY: help setup installed demo test test-long test-gpu test-wheel check json format bench constraints clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: QUIET :=
setup: installed  ## .venv with every extra that this platform can have; says how to have the command

installed:
	@command -v $(PYTHON) >/dev/null || { echo "setup: no $(PYTHON) here; name a Python 3.11 or newer: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) scripts/setup.py $(QUIET)

demo: installed  ## a campaign of 8 s trials in demo/; again to go on with it
	@$(BIN)/autoresearch run demo --preset demo --experiments $(EXPERIMENTS)

test: installed  ## everything but the slow suites
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long and not gpu"

test-long: installed  ## the slow suites
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "long and not gpu" --timeout 1500

test-gpu: installed  ## what only a GPU can prove
	@$(BIN)/python -m pytest -m gpu

test-wheel: installed  ## the built wheel in every Python from 3.11 to 3.14 that is here, outside of the checkout
	@$(BIN)/python scripts/try_wheel.py

check: installed  ## lint, format and types over the whole tree
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

json: installed  ## docs/json.md and its JSON Schema, from core/cli/json_types.py
	@$(BIN)/python scripts/json_page.py

format: installed  ## mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: installed  ## every suite of autoresearch bench, held against the last run; PRESET=cpu
	@$(BIN)/autoresearch bench all --preset $(PRESET)

# A pin stays where its line stays: delete the line to let it move. Torch pins the libraries of its own devices.
constraints: installed  ## pin what pyproject.toml asks for and constraints.txt lacks
	@$$(command -v uv || echo $(BIN)/uv) pip compile --quiet --universal --all-extras --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --constraint constraints.txt pyproject.toml \
	  | sed -E -e '/^nvidia-ml-py==/b' -e '/^(nvidia-|cuda-|triton)/d' > .venv/constraints.new && mv .venv/constraints.new constraints.txt

clean:  ## all that is made here: .venv, demo/ and caches
	rm -rf .venv demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
