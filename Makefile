# make demo   a first result: sets up .venv (once) and runs the demo on the CPU
# make test   sets up .venv with the developer's tools (once), then lint, types and the whole test suite
# make test-cluster   the launchers on a real Slurm and a real Ray, both on this machine

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
WORKERS ?= 2
# Compiled programs are kept between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/$(VENV)/jax_cache

.PHONY: demo test test-cluster lint format clean
.DELETE_ON_ERROR:

demo: $(VENV)/core.stamp
	$(VENV)/bin/jaxdiff demo

test: lint
	$(VENV)/bin/pytest -n $(WORKERS) --dist loadfile

# Slurm is installed and started by the tests where apt-get may do it; Ray runs as two nodes on this machine.
test-cluster: $(VENV)/dev.stamp
	$(INSTALL) --no-build-isolation --editable '.[dev,slurm,ray]'
	$(VENV)/bin/pytest -m cluster tests/launch

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(VENV)/dev.stamp
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache

# The first interpreter of a version that the dependencies have wheels for; PYTHON=/path/to/python overrides.
$(VENV)/bin/pip:
	@for python in $(PYTHON) python3 python3.12 python3.11 python3.13; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then \
	    echo "Setting up $(VENV) with $$($$python --version)"; \
	    $$python -m venv --clear $(VENV) && exit 0; \
	    echo "$$python cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; \
	  fi; \
	done; \
	echo "jaxdiff needs Python 3.11, 3.12 or 3.13; python3 here is: $$(python3 --version 2>&1)." >&2; \
	echo "Install one of them, or name it: make demo PYTHON=/path/to/python3.12" >&2; exit 1

$(VENV)/core.stamp: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing the pinned CPU wheels into $(VENV): about 300 MB to download, once"
	$(INSTALL) hatchling
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@
