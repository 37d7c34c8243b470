# make demo   installs what is needed and embeds sample recordings on a local endpoint
# make run    INPUT=... OUTPUT=... [ARGS=...]: embeds recordings of yours on a local endpoint
# make test   installs what is needed and runs the tests
# make test-tensorflow   reads the TFRecord output back with TensorFlow, in an environment of its own
# make bigquery-server   installs the local BigQuery server for the tests; make test does so too
# make template-metadata   writes templates/metadata.json anew, from the command's options
# make lint, make format, make bench, make bench-full, make lock, make clean

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
TENSORFLOW_VENV := .venv-tensorflow
BIGQUERY_VENV := .venv-bigquery
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps
UV_VERSION := 0.13.9

OUTPUT ?= out/run
ARGS ?=

.PHONY: demo run test test-tensorflow bigquery-server template-metadata lint format bench bench-full lock clean

demo: $(VENV)/.installed
	$(BIN)/python -m emulator.recordings out/demo/recordings
	$(BIN)/python -m pipeline --endpoint local --input out/demo/recordings --output out/demo/embeddings --overwrite $(ARGS)

run: $(VENV)/.installed
	@test -n "$(INPUT)" || { echo "make run needs INPUT, such as: make run INPUT=data/coughs OUTPUT=out/coughs" >&2; exit 2; }
	$(BIN)/python -m pipeline --endpoint local "--input=$(INPUT)" "--output=$(OUTPUT)" $(ARGS)

test: $(VENV)/.installed-dev bigquery-server
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder $(ARGS)

test-tensorflow: $(VENV)/.installed-dev $(TENSORFLOW_VENV)/.installed
	TENSORFLOW_PYTHON=$(TENSORFLOW_VENV)/bin/python $(BIN)/python -m pytest tests/tensorflow $(ARGS)

bigquery-server: $(BIGQUERY_VENV)/.installed

template-metadata: $(VENV)/.installed
	$(BIN)/python -m pipeline.template > templates/metadata.json.new
	mv templates/metadata.json.new templates/metadata.json

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks --short

bench-full: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) -r requirements.lock
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock | $(VENV)/bin/python
	$(BIN)/python $(PIP_INSTALL) -r requirements-dev.lock
	touch $@ $(VENV)/.installed

$(TENSORFLOW_VENV)/.installed: requirements-tensorflow.lock
	$(PYTHON) -m venv $(TENSORFLOW_VENV)
	$(TENSORFLOW_VENV)/bin/python $(PIP_INSTALL) -r requirements-tensorflow.lock
	touch $@

# Where there is no Python 3.13 this only says so, and is tried again the next time.
$(BIGQUERY_VENV)/.installed: requirements-bigquery.lock tests/cloud/install_bigquery.sh
	tests/cloud/install_bigquery.sh $(BIGQUERY_VENV) requirements-bigquery.lock $(UV_VERSION)

# Resolves the newest versions that pyproject.toml allows, for Python 3.10 to 3.13.
lock:
	$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip install --quiet uv==$(UV_VERSION)
	build/lock/bin/uv pip compile -q -U --universal --python-version 3.10 --no-header --no-annotate --extra formats pyproject.toml -o requirements.txt
	build/lock/bin/uv pip compile -q --universal --python-version 3.10 --no-header --no-annotate --generate-hashes --extra formats -c requirements.txt pyproject.toml -o requirements.lock
	build/lock/bin/uv pip compile -q --universal --python-version 3.10 --no-header --no-annotate --generate-hashes --extra formats --extra dev -c requirements.txt pyproject.toml -o requirements-dev.lock
	build/lock/bin/uv pip compile -q --python-version 3.11 --no-header --no-annotate --generate-hashes tests/tensorflow/requirements.in -o requirements-tensorflow.lock
	build/lock/bin/uv pip compile -q --python-version 3.13 --no-header --no-annotate --generate-hashes tests/cloud/requirements.in -o requirements-bigquery.lock

clean:
	rm -rf $(VENV) $(TENSORFLOW_VENV) $(BIGQUERY_VENV) build out .pytest_cache .mypy_cache .ruff_cache .hypothesis
