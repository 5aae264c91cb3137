# make demo    the first result in short (one seed, three noise levels), with its figures, in ./demo
# make test    what CI runs: lint, types, and the suite against the built wheel  (ARGS="-k oja -x" goes to pytest)
# make bench   every script in benchmarks/
# make lint    ruff alone, on what is set up already
# make clean   removes what the above made, .venv included

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN  := $(VENV)/bin
SITE := build/site
PIP  := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test bench lint clean wheel
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-run
	$(BIN)/engrax run linsker1992 --out demo --set seeds=1 --set noise_variance=0.1,0.3,1 --set parts=ring,photographs,ica

# The suite sees the package as users get it: a file that setup.cfg forgets is missing here too, while an editable
# install would find it in the checkout. The wheel's folder comes before the editable install on the path.
test: export PYTHONPATH := $(CURDIR)/$(SITE)
test: $(VENV)/.stamp-test lint wheel
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses=auto --dist=worksteal $(ARGS)

wheel: $(VENV)/.stamp-test
	rm -rf build
	$(PIP) install --quiet --no-deps --no-build-isolation --no-index --target $(SITE) .

bench: $(VENV)/.stamp-bench
	@for script in $(filter-out benchmarks/common.py,$(sort $(wildcard benchmarks/*.py))); do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis $(VENV)

$(VENV)/.stamp-run:   EXTRAS :=
$(VENV)/.stamp-test:  EXTRAS := [test]
$(VENV)/.stamp-bench: EXTRAS := [bench]
$(VENV)/.stamp-%: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install --quiet -e '.$(EXTRAS)'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "engrax needs Python 3.11 or later, $(PYTHON) is none: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
