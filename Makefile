# `make demo` and `make test` are all that a fresh machine with Python and make needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types rooms check docs clean

demo: $(STAMP)
	$(BIN)/segweave demo --out demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

rooms: $(STAMP)
	$(BIN)/lint-imports

check: lint types rooms test

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[train,zoo,report,fast,test,dev,docs]"
	touch $@

clean:
	rm -rf $(VENV) build dist site demo
