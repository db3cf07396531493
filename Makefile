# make demo    installs what a user needs (PyTorch, numpy, scipy, SimpleITK) and segments the sample
# make setup   installs everything: training, tests, checks
# make test    all checks and all tests; `make lint` the checks alone; `make coverage` the tests with their coverage
PYTHON ?= python3

# On Linux without an NVIDIA GPU, give the address of PyTorch's wheels for the CPU, which PyTorch's installation page
# shows under "CPU": make demo TORCH_INDEX=ADDRESS. Otherwise pip may take the build for GPUs, which is gigabytes larger.
# macOS and Windows get the small build anyway.
TORCH_INDEX ?=

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# PYTHONUTF8: Qt resets the locale of the process that tests the panel, and what other programs print is read as UTF-8.
TEST := QT_QPA_PLATFORM=offscreen OMP_NUM_THREADS=1 PYTHONUTF8=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: demo setup test lint coverage clean

demo: $(VENV)/.runtime
	$(BIN)/pedboneseg demo -o demo-output

setup: $(VENV)/.ready

# The lock comes first and alone, so that the package's own lower bounds cannot move anything that the lock pins.
$(VENV)/.runtime: requirements-runtime.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "PedBoneSeg needs Python 3.11 or newer; name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --requirement requirements-runtime.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.ready: $(VENV)/.runtime requirements.lock
	$(PIP) --requirement requirements.lock
	touch $@

test: setup lint
	Testing/install-system-packages
	$(TEST) --durations 15

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: setup
	Testing/install-system-packages
	$(TEST) --cov --cov-report term:skip-covered --cov-report html

clean:
	rm -rf $(VENV) demo-output htmlcov .coverage
