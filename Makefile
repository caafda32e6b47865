# All targets use .venv, which $(PYTHON) creates from requirements/dev.txt. The benchmarks need
# Python 3.11 and use .venv-bench instead, created from requirements/bench.txt; the site needs it
# too and uses .venv-docs, created from requirements/docs.txt.
# ARGS are options for a benchmark: make cutest ARGS="--problems AKIVA ROSENBR --jobs 1".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
DOCS := .venv-docs
DOCS_READY := $(DOCS)/.ready

# With this, `make matrix` also finds interpreters of pyenv that are not on the PATH.
PYENV_BINS := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.*/bin)
EMPTY :=
drift matrix: export PATH := $(PATH):$(subst $(EMPTY) $(EMPTY),:,$(PYENV_BINS))

# COMPILE continues with the oldest Python, and with the requirements to lock.
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
COMPILE = $(LOCK) setup.cfg --python-version

.PHONY: help demo test test-slow conformance coverage lint types golden drift matrix dist wheelhouse \
	offline-test audit docs bench cutest rosenbrock lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(READY)  ## fit scikit-learn's digits with L-BFGS inside a scan
	$(BIN)/python examples/digits.py

test: $(READY)  ## run the tests that are not marked slow, in less than ten minutes
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(READY)  ## run the others: many programs, devices, processes or environments
	$(BIN)/python -m pytest -n auto -m slow

conformance: $(READY)  ## run Optax's own tests against this package
	$(BIN)/python -m pytest -n auto tests/conformance

coverage: $(READY)  ## run all tests and list the lines that no test runs
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(READY)  ## check style, format and security
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --recursive optax_ls

types: $(READY)  ## check the types of the package
	$(BIN)/mypy

golden: $(READY)  ## renew the golden runs; CHANGELOG.md must explain the change
	PYTHONPATH=tests $(BIN)/python -m golden renew

drift: $(READY)  ## run the golden runs on every Python and JAX, print the largest drift of each
	rm -rf build/drift
	status=0; $(BIN)/tox run -- python -m golden compare --save build/drift || status=1; \
	PYTHONPATH=tests $(BIN)/python -m golden table build/drift && exit $$status

matrix: drift  ## drift, then all tests on four pairs of Python and JAX; lists missing interpreters
	$(BIN)/tox run -e py310-oldest,py310-newest,py311-newest,py313-newest

dist: $(READY)  ## build wheel and source distribution, the same bytes for the same commit
	$(BIN)/python -m distribution.build

wheelhouse: $(READY)  ## pack the package and its dependencies for a machine without a network
	$(BIN)/python -m distribution.wheelhouse

offline-test: wheelhouse  ## install and test that archive without a network
	sh distribution/offline_test.sh dist/*-wheelhouse-*.tar.gz $(BIN)/python

audit: $(READY)  ## check the package for insecure code, the locks for known vulnerabilities
	$(BIN)/bandit --quiet --recursive optax_ls
	$(BIN)/python -m distribution.audit requirements/*.txt

docs: $(DOCS_READY)  ## build the site into build/site; every warning and every dead link is an error
	PYTHONPATH=$(CURDIR) $(DOCS)/bin/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky \
		--doctree-dir build/doctrees docs build/site || { rm -rf build/doctrees; exit 1; }
	$(DOCS)/bin/python docs/check_links.py build/site
	@echo "The site begins at build/site/index.html."

bench: $(BENCH_READY)  ## measure speed and size of all solvers, write benchmarks/RESULTS.md
	$(BENCH)/bin/python -m benchmarks.speed $(ARGS)

cutest: $(BENCH_READY)  ## count evaluations on problems of CUTEst; ARGS=--help lists the options
	$(BENCH)/bin/python -m benchmarks.cutest $(ARGS)

rosenbrock: $(BENCH_READY)  ## time the solvers on a thousand problems under vmap
	$(BENCH)/bin/python -m benchmarks.rosenbrock_vmap $(ARGS)

lock: $(READY)  ## renew the locked requirements
	$(COMPILE) 3.10 requirements/dev.in --extra test --extra progress --extra plot -o requirements/dev.txt
	$(COMPILE) 3.10 --constraints requirements/dev.txt -o requirements/runtime.txt
	$(COMPILE) 3.10 --constraints requirements/dev.txt requirements/offline.in -o requirements/offline.txt
	$(COMPILE) 3.10 requirements/oldest.in --extra test -o requirements/oldest.txt
	$(COMPILE) 3.11 --constraints requirements/dev.txt --extra bench -o requirements/bench.txt
	$(COMPILE) 3.11 --constraints requirements/dev.txt requirements/docs.in -o requirements/docs.txt
	$(LOCK) --python-version 3.10 --constraints requirements/dev.txt requirements/build.in -o requirements/build.txt

clean:  ## remove all files that make has created
	rm -rf $(VENV) $(BENCH) $(DOCS) .tox .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/dev.txt setup.cfg setup.py optax_ls/_version.py
	@echo "Creating $(VENV) from requirements/dev.txt. The first time this takes a minute or two."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	rm -rf *.egg-info
	$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --use-pep517 --editable .
	@touch $@

$(BENCH_READY): requirements/bench.txt
$(DOCS_READY): requirements/docs.txt
$(BENCH_READY) $(DOCS_READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$@ needs Python 3.11 or newer: pass one, for example PYTHON=python3.12")'
	@echo "Creating $(@D) from $<. The first time this takes a minute or two."
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --require-hashes -r $<
	@touch $@
