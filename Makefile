# Everything runs in .venv, made by $(PYTHON) and filled from requirements/dev.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Interpreters that pyenv holds need not be on the PATH for `make matrix` to find them.
PYENV_BINS := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.*/bin)
EMPTY :=
matrix: export PATH := $(PATH):$(subst $(EMPTY) $(EMPTY),:,$(PYENV_BINS))

COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 \
	--generate-hashes --no-annotate --custom-compile-command "make lock" setup.cfg

.PHONY: help demo test conformance coverage lint types matrix lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(READY)  ## fit scikit-learn's digits with L-BFGS inside a scan
	$(BIN)/python examples/digits.py

test: $(READY)  ## run every test but the matrix
	$(BIN)/python -m pytest -n auto

conformance: $(READY)  ## run Optax's own tests against this package
	$(BIN)/python -m pytest -n auto tests/conformance

coverage: $(READY)  ## run every test and report the lines that none reaches
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(READY)  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check the types of the package
	$(BIN)/mypy

matrix: $(READY)  ## run the tests on the oldest and newest JAX; names interpreters it lacks
	$(BIN)/tox run

lock: $(READY)  ## renew the locked requirements
	$(COMPILE) requirements/dev.in --extra test --extra progress --extra plot -o requirements/dev.txt
	$(COMPILE) --constraints requirements/dev.txt -o requirements/runtime.txt
	$(COMPILE) requirements/oldest.in --extra test -o requirements/oldest.txt

clean:  ## remove everything that make has made
	rm -rf $(VENV) .tox .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/dev.txt setup.cfg setup.py optax_ls/_version.py
	@echo "Filling $(VENV) from requirements/dev.txt: a minute or two, the first time only."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --use-pep517 --editable .
	@touch $@
