# `make demo` and `make test` are all that a fresh machine with Python and make needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
PIP := $(BIN)/pip install --quiet --constraint constraints.txt --editable
# One thread each. Freed memory is kept, up to 512 MiB in a process, for a fifth of what large float64
# maps take goes into fresh pages. Compiled modules are kept even where the environment says otherwise,
# for every process that a test starts reads them.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= MALLOC_MMAP_THRESHOLD_=536870912 \
	MALLOC_TRIM_THRESHOLD_=536870912 $(BIN)/pytest -n 2 --dist worksteal
# The oldest processor that the libraries can imitate: no AVX in torch, oneDNN or numba.
OLD := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 NUMBA_CPU_NAME=generic
NUMBERS := tests/context tests/networks tests/weaving tests/metrics tests/evaluation tests/training \
	tests/prediction
SEEDS ?= 20
VENDOR := src/segweave/serve/static/vendor

.PHONY: demo page test coverage numbers-old search lint types imports check docs lower-bounds clean

demo: $(DEMO_STAMP)
	$(BIN)/segweave demo --out demo

# The 3D viewer of the page of `segweave serve`, by npm; a wheel that is built afterwards holds it.
page:
	cd page && npm ci --ignore-scripts --omit=optional --no-audit --no-fund
	rm -rf $(VENDOR)
	mkdir -p $(VENDOR)/licences
	cp page/node_modules/@niivue/niivue/dist/niivue.umd.js $(VENDOR)/niivue.js
	cp page/LICENCE-niivue $(VENDOR)/licences/niivue
	cd page/node_modules && for file in */LICENSE* */*/LICENSE*; do \
		cp "$$file" "$(CURDIR)/$(VENDOR)/licences/$$(dirname "$$file" | tr / -)"; done

test: $(STAMP)
	$(PYTEST)

# The suite with its coverage: lines at least 97 %, branches at least 90 %.
coverage: $(STAMP)
	rm -f .coverage .coverage.*
	$(PYTEST) --cov --cov-report=
	$(BIN)/python tests/coverage_gate.py

# What compares numbers, as an old processor computes them.
numbers-old: $(STAMP)
	$(OLD) $(PYTEST) -m "not slow" $(NUMBERS)

# Properties with new random inputs; not in CI, so that CI gives the same result twice.
search: $(STAMP)
	for seed in $$(seq $(SEEDS)); do $(PYTEST) -q -m hypothesis --hypothesis-profile=search || exit 1; done

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

check: lint types imports test

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

# The suite with the oldest versions that pyproject.toml allows.
lower-bounds:
	$(PYTHON) -m venv .venv-lower
	.venv-lower/bin/pip install --quiet --constraint constraints-lower.txt --editable ".[train,zoo,report,fast,test]"
	OMP_NUM_THREADS=1 .venv-lower/bin/pytest -n 2 --dist worksteal

$(DEMO_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing what the demo needs (torch is large: some minutes the first time)"
	$(PIP) ".[train,report,serve,dicom]"
	touch $@

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing what the tests need (torch is large: some minutes the first time)"
	$(PIP) ".[train,zoo,report,fast,test,dev,docs]"
	touch $@ $(DEMO_STAMP)

clean:
	rm -rf $(VENV) .venv-lower build dist site demo page/node_modules $(VENDOR)
