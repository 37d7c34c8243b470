# make demo   installs what is needed and embeds sample recordings on a local endpoint
# make run    INPUT=... OUTPUT=... [ARGS=...]: embeds recordings of yours on a local endpoint
# make test   installs what is needed and runs the tests
# make tfio   makes .venv-tfio, the environment for --resampler tensorflow_io
# make test-tensorflow   the tests that need TensorFlow: that resampler, and the TFRecord output read back; does make tfio
# make bigquery-server   installs the local BigQuery server for the tests; make test does so too
# make template-metadata   writes templates/metadata.json anew, from the command's options
# make lint, make format, make bench, make bench-full, make bench-resamplers, make lock, make clean

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
TFIO_VENV := .venv-tfio
BIGQUERY_VENV := .venv-bigquery
UV_VERSION := 0.13.9
UV_VENV := build/uv-$(UV_VERSION)
UV := $(UV_VENV)/bin/uv
HASHED := --quiet --require-hashes --no-deps

OUTPUT ?= out/run
ARGS ?=

# $(call install,FOLDER,LOCK): by uv, in a quarter of pip's time; by pip where uv gets nowhere, as it reads no pip.conf.
define install
@$(MAKE) --silent $(UV); \
$(UV) pip install --compile-bytecode --python $(1)/bin/python $(HASHED) -r $(2) || \
$(1)/bin/python -m pip install --disable-pip-version-check $(HASHED) -r $(2)
endef

.PHONY: demo run test tfio test-tensorflow bigquery-server template-metadata lint format bench bench-full bench-resamplers lock clean

demo: $(VENV)/.installed
	$(BIN)/python -m emulator.recordings out/demo/recordings
	$(BIN)/python -m pipeline --endpoint local --input out/demo/recordings --output out/demo/embeddings --overwrite $(ARGS)

run: $(VENV)/.installed
	@test -n "$(INPUT)" || { echo "make run needs INPUT, such as: make run INPUT=data/coughs OUTPUT=out/coughs" >&2; exit 2; }
	$(BIN)/python -m pipeline --endpoint local "--input=$(INPUT)" "--output=$(OUTPUT)" $(ARGS)

test: $(VENV)/.installed-dev bigquery-server
	$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder $(ARGS)

tfio: $(TFIO_VENV)/.installed

test-tensorflow: tfio
	$(TFIO_VENV)/bin/python -m pytest tests/tensorflow $(ARGS)

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

bench-resamplers: tfio
	$(TFIO_VENV)/bin/python -m benchmarks.resamplers $(ARGS)

$(UV): requirements-uv.lock
	$(PYTHON) -m venv $(UV_VENV)
	$(UV_VENV)/bin/python -m pip install --disable-pip-version-check $(HASHED) -r requirements-uv.lock
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock | $(VENV)/bin/python
	$(call install,$(VENV),requirements.lock)
	touch $@

$(VENV)/.installed-dev: requirements-dev.lock | $(VENV)/bin/python
	$(call install,$(VENV),requirements-dev.lock)
	touch $@ $(VENV)/.installed

$(TFIO_VENV)/.installed: requirements-tfio.txt
	$(PYTHON) -m venv $(TFIO_VENV)
	$(call install,$(TFIO_VENV),requirements-tfio.txt)
	touch $@

# Where there is no Python 3.13 this only says so, and is tried again the next time.
$(BIGQUERY_VENV)/.installed: requirements-bigquery.lock tests/cloud/install_bigquery.sh
	@$(MAKE) --silent $(UV) || true
	tests/cloud/install_bigquery.sh $(BIGQUERY_VENV) requirements-bigquery.lock $(UV)

# Resolves the newest versions that pyproject.toml allows, for Python 3.10 to 3.13.
COMPILE := $(UV) pip compile -q --no-header --no-annotate
lock: $(UV)
	$(COMPILE) -U --universal --python-version 3.10 --extra formats pyproject.toml -o requirements.txt
	$(COMPILE) --universal --python-version 3.10 --generate-hashes --extra formats -c requirements.txt pyproject.toml -o requirements.lock
	$(COMPILE) --universal --python-version 3.10 --generate-hashes --extra formats --extra dev -c requirements.txt pyproject.toml -o requirements-dev.lock
	grep -v '^numpy==' requirements.txt > build/but-numpy.txt
	echo 'protobuf>=6.33,<7' > build/override.txt
	$(COMPILE) --python-version 3.11 --generate-hashes --extra formats -c build/but-numpy.txt --override build/override.txt \
		pyproject.toml requirements-tfio.in -o requirements-tfio.txt
	$(COMPILE) --python-version 3.13 --generate-hashes tests/cloud/requirements.in -o requirements-bigquery.lock
	echo uv==$(UV_VERSION) | $(COMPILE) --universal --python-version 3.10 --generate-hashes - -o requirements-uv.lock

clean:
	rm -rf $(VENV) $(TFIO_VENV) $(BIGQUERY_VENV) build out .pytest_cache .mypy_cache .ruff_cache .hypothesis
