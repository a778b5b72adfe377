# Everything runs from .venv, which `make setup` fills and every target below calls.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
REQUIREMENTS := requirements.txt requirements-dev.txt requirements-torch.txt requirements-sam2.txt
PORT ?= 8090
WORKERS ?= 1
MODEL ?=
MEMORY ?=
SHA256 ?=
VIDEO ?=
SHEET ?=
SEEDS ?=
ARGS ?=
# Python keeps what it compiles: without that, each process of the tests compiles all of it again.
unexport PYTHONDONTWRITEBYTECODE
# npm writes it after the packages of the plugin
PLUGIN_PACKAGES := cvat_ui_plugin/node_modules/.package-lock.json
# torch for another device: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.PHONY: help setup demo film pictures test test-fast test-plugin mutants check serve bench bench-full evaluate train \
	weights check-image faults action ui-plugin clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/installed  ## install everything into .venv

$(VENV)/installed: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements-torch.txt
	$(PY) -m pip install --quiet -r requirements-dev.txt
	SAM2_BUILD_CUDA=0 $(PY) -m pip install --quiet --no-deps --no-build-isolation \
		--require-hashes -r requirements-sam2.txt
	@touch $@

pictures: setup  ## draw the pictures of README's table of first masks (docs/images/first_mask_*.jpg)
	$(PY) -m tools.first_mask $(if $(MODEL),--model "$(MODEL)")

demo: setup  ## the main job on a clip that we draw (or VIDEO=my.mp4 SEEDS=seeds.json, MODEL=..., MEMORY=...)
	$(PY) -m tools.demo $(if $(VIDEO),--video "$(VIDEO)") $(if $(SEEDS),--seeds "$(SEEDS)") \
		$(if $(MODEL),--model "$(MODEL)") $(if $(MEMORY),--memory "$(MEMORY)") $(ARGS)

film: setup  ## the demo on three people of a film that Debian's opencv-doc carries (out/film)
	$(PY) -m tools.film $(if $(SHEET),--sheet "$(SHEET)")

# Two processes: the tests of a file stay together, and torch takes one thread in each.
test: setup test-plugin  ## all tests, those of the plugin too (the Chromium walk: make ui-plugin)
	$(PY) -m pytest -q -n 2 --dist loadfile

test-fast: setup  ## the quick tests, in a minute: without HTTP servers, kills and long comparisons
	HYPOTHESIS_PROFILE=fast $(PY) -m pytest -q -m "not slow" -n 2 --dist worksteal

test-plugin: setup $(PLUGIN_PACKAGES)  ## types and tests of the plugin for CVAT's page, without a browser
	cd cvat_ui_plugin && ./with_node.sh npm run check && ./with_node.sh npm test

$(PLUGIN_PACKAGES): cvat_ui_plugin/package-lock.json | setup
	cd cvat_ui_plugin && ./with_node.sh npm ci
	@touch $@

mutants: setup $(PLUGIN_PACKAGES)  ## break the code in one place at a time, and name the test that catches it
	$(PY) tests/mutants.py $(ARGS)

check: setup  ## ruff, mypy, import-linter, shellcheck
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy .
	$(VENV)/bin/lint-imports
	git ls-files -z '*.sh' .ci/run | xargs -0 -r $(VENV)/bin/shellcheck

serve: setup  ## the function behind HTTP (PORT=8090 WORKERS=1), without Docker
	$(PY) -m tools.serve --port $(PORT) --workers $(WORKERS)

weights: setup  ## fetch a checkpoint, checked (MODEL=sam2.1_hiera_tiny, SHA256= for SAM 2)
	$(PY) -m sam2_tracker.download $(MODEL) $(if $(SHA256),--sha256 $(SHA256))

action: setup  ## the annotation action (ARGS="--server-host ... track --job 42 ...")
	$(PY) -m cvat_action $(ARGS)

faults: setup $(PLUGIN_PACKAGES)  ## all fault campaigns in full, one line each (ARGS="--scale 0.1 --seed 7 bodies")
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PY) -m faults $(ARGS)

bench: setup  ## speed beside the official predictor, interleaved (at most 10 minutes)
	$(PY) -m benchmarks

bench-full: setup  ## the same with 2, 8, 16 objects, PNG, and the larger models on a GPU
	$(PY) -m benchmarks --full

check-image: setup  ## carry out the image's build directives for real (minutes)
	$(PY) tests/deploy/check_image.py

evaluate: setup  ## the quality of the bundled micro model
	$(PY) -m training.evaluate

ui-plugin: test-plugin  ## build the plugin for CVAT's page, and run it in Chromium
	cd cvat_ui_plugin && ./with_node.sh npm run build
	cd cvat_ui_plugin && PYTHON="$(CURDIR)/$(PY)" ./with_node.sh npm run e2e

train: setup  ## go on training the micro model from its committed weights (ARGS="--minutes 60")
	$(PY) -m training.train --start-from models/sam2.1_hiera_micro.safetensors $(ARGS)

clean:  ## remove .venv and out/
	rm -rf $(VENV) out
