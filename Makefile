# The same targets for people and for the build: demo, test, check, bad-inputs, bench, docs.
# Each makes the environment in .venv first, where it is not there yet.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
JOBS ?= 2

.PHONY: demo test check bad-inputs bench docs format clean
.DEFAULT_GOAL := test

.venv/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "segwright needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

test: .venv/.installed
	$(BIN)/python -m pytest -n $(JOBS)

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bad-inputs: .venv/.installed
	$(BIN)/python tests/bad_inputs.py

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: .venv/.installed
	rm -rf demo
	$(BIN)/python -m segwright.data.synthetic demo/photos --images 120
	$(BIN)/segwright train demo/photos --out demo/runs --name demo --minutes 1.5 \
		-o model.name=unet -o model.encoder=null -o model.arguments='{width: 16}' -o model.weights=none
	$(BIN)/segwright evaluate demo/runs/demo --split test
	$(BIN)/segwright report demo/runs/demo
	@echo "Open $(CURDIR)/demo/runs/demo/report.html in a browser."

bench: .venv/.installed
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

docs: .venv/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv demo site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
