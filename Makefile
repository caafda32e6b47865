# Everything runs in .venv, made by $(PYTHON) and filled from requirements/dev.txt; only the
# benchmarks, which need Python 3.11, have a .venv-bench, filled from requirements/bench.txt.
# ARGS are options for a benchmark: make cutest ARGS="--problems AKIVA ROSENBR --jobs 1".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready

# Interpreters that pyenv holds need not be on the PATH for `make matrix` to find them.
PYENV_BINS := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.*/bin)
EMPTY :=
drift matrix: export PATH := $(PATH):$(subst $(EMPTY) $(EMPTY),:,$(PYENV_BINS))

# What follows is the oldest Python, and what to lock.
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-annotate \
	--custom-compile-command "make lock"
COMPILE = $(LOCK) setup.cfg --python-version

.PHONY: help demo test conformance coverage lint types golden drift matrix dist wheelhouse \
	offline-test audit bench cutest rosenbrock lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

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

lint: $(READY)  ## check style and format, and look for insecure code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --recursive optax_ls

types: $(READY)  ## check the types of the package
	$(BIN)/mypy

golden: $(READY)  ## renew the golden runs, whose change CHANGELOG.md must explain
	PYTHONPATH=tests $(BIN)/python -m golden renew

drift: $(READY)  ## golden runs on every Python and JAX; prints the largest drift of each pair
	rm -rf build/drift
	status=0; $(BIN)/tox run -- python -m golden compare --save build/drift || status=1; \
	PYTHONPATH=tests $(BIN)/python -m golden table build/drift && exit $$status

matrix: drift  ## the same, and the tests on four of them; names interpreters it lacks
	$(BIN)/tox run -e py310-oldest,py310-newest,py311-newest,py313-newest

dist: $(READY)  ## build wheel and source distribution: the same bytes for the same commit
	$(BIN)/python -m distribution.build

wheelhouse: $(READY)  ## collect all that an isolated machine like this one needs, in one archive
	$(BIN)/python -m distribution.wheelhouse

offline-test: wheelhouse  ## install that archive where there is no network, and test it there
	sh distribution/offline_test.sh dist/*-wheelhouse-*.tar.gz $(BIN)/python

audit: $(READY)  ## look for insecure code in the package, and for known holes in what is locked
	$(BIN)/bandit --quiet --recursive optax_ls
	$(BIN)/python -m distribution.audit requirements/*.txt

bench: $(BENCH_READY)  ## time and measure it all beside the peers; writes benchmarks/RESULTS.md
	$(BENCH)/bin/python -m benchmarks.speed $(ARGS)

cutest: $(BENCH_READY)  ## run the solvers on problems of CUTEst; ARGS=--help for the options
	$(BENCH)/bin/python -m benchmarks.cutest $(ARGS)

rosenbrock: $(BENCH_READY)  ## time the solvers on a thousand problems at once, under vmap
	$(BENCH)/bin/python -m benchmarks.rosenbrock_vmap $(ARGS)

lock: $(READY)  ## renew the locked requirements
	$(COMPILE) 3.10 requirements/dev.in --extra test --extra progress --extra plot -o requirements/dev.txt
	$(COMPILE) 3.10 --constraints requirements/dev.txt -o requirements/runtime.txt
	$(COMPILE) 3.10 --constraints requirements/dev.txt requirements/offline.in -o requirements/offline.txt
	$(COMPILE) 3.10 requirements/oldest.in --extra test -o requirements/oldest.txt
	$(COMPILE) 3.11 --constraints requirements/dev.txt --extra bench -o requirements/bench.txt
	$(LOCK) --python-version 3.10 --constraints requirements/dev.txt requirements/build.in -o requirements/build.txt

clean:  ## remove everything that make has made
	rm -rf $(VENV) $(BENCH) .tox .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/dev.txt setup.cfg setup.py optax_ls/_version.py
	@echo "Filling $(VENV) from requirements/dev.txt: a minute or two, the first time only."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --use-pep517 --editable .
	@touch $@

$(BENCH_READY): requirements/bench.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$@ needs Python 3.11 or newer: name one, as in PYTHON=python3.12")'
	@echo "Filling $(BENCH) from requirements/bench.txt: a minute or two, the first time only."
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --require-hashes -r requirements/bench.txt
	@touch $@
