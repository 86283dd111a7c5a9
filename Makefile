# `make demo` and `make test` need Python >= 3.10 and nothing else; both set up their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN = $(VENV)/bin

# A test process a core, of about 1.5 GB each. The filter keeps a remark of SWIG's, at exit, from following the summary.
TESTS = PYTHONWARNINGS="ignore:builtin type:DeprecationWarning" \
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test quick lint types tests processes docs pictures sbom clean

demo: $(VENV)/.installed
	$(BIN)/phs-pipeline demo -o $(DEMO)

test: lint types tests

# What takes long is left to `make test`; properties are tried on fewer examples.
quick: $(VENV)/.installed lint
	$(TESTS) -m "not slow and not data" --hypothesis-profile quick

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.installed
	$(BIN)/mypy

tests: $(VENV)/.installed
	$(TESTS)

# Every bundle trained by two processes, of which `tests` tries one.
processes: $(VENV)/.installed
	PHS_EVERY_BUNDLE=1 $(BIN)/python -m pytest tests/bundles/test_processes.py

# Warnings are errors: a dead link or anchor, a page that is not in the navigation.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

# What the image holds, packages of Python and Debian, as CycloneDX: phs-pipeline.cdx.json. DOCKER_BUILD may say more.
sbom:
	DOCKER_BUILDKIT=1 docker build $(DOCKER_BUILD) --file Dockerfile.sbom --output . .

# What the pages of the commands and the cards show, made anew on synthetic brains: some twenty minutes of a core, and Chromium for three.
pictures: $(VENV)/.installed
	$(BIN)/python docs/pictures.py

# Done again when the pinned versions or the dependencies change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("phs-pipeline needs Python 3.10 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
