# `make help` lists what there is to make. Each line can also be typed by hand: see README.md.

PYTHON ?= python3
BIN := .venv/bin
# TensorFlow 2.22 is the first with packages for Python 3.14.
NEWEST := $(if $(shell grep '^tensorflow==2.21' requirements.txt),13,14)
# Stages and DVC run in this environment, whatever else is on the machine.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := run
.PHONY: run fast short best digits experiments cluster draw undo test test-all lint plots notebook card bench lock clean help

run: .venv/installed  ## run what has changed (on digits if MNIST cannot be reached), show the result
ifdef DATA
	@echo "Copying $(DATA) into data/own"
	@cp -RL "$(DATA)" data/own/
	@python -m tools.run photos -S "download.dataset=$(notdir $(DATA:/=))"
else
	@python -m tools.run
endif

fast:  ## try a small model, one epoch
short:  ## try the default's model, trained for 3 epochs only
best:  ## try a wider model
digits:  ## try the small images that scikit-learn carries: a minute, works offline
fast short best digits: .venv/installed
	@python -m tools.run $@

experiments: .venv/installed  ## show what was tried, what was changed and what came of it
	@python -m tools.experiments

draw: .venv/installed  ## open the page to draw on, with the trained model in it
	@python -m apps.draw
	@echo "Opening models/exported/draw.html in a browser"
	@python -c 'import pathlib, webbrowser; \
	    webbrowser.open(pathlib.Path("models/exported/draw.html").resolve().as_uri())'

undo: .venv/installed  ## discard an experiment: back to the committed params, results and model
	@python -m tools.undo

cluster: .venv/installed  ## train one model with two workers, as on two hosts
	@python -m tools.cluster --workers 2 python -m stages.train --seed 0

test: .venv/installed  ## run the tests (minutes)
	pytest

test-all: .venv/installed  ## run all tests, the long ones too
	pytest -m ""

lint: .venv/installed-dev  ## check style
	ruff check .
	ruff format --check .

plots: .venv/installed  ## draw the results as a page, dvc_plots/index.html
	dvc plots show

# Nothing that differs between two runs stays in the file: no times, no versions of Python.
notebook: .venv/installed-dev  ## run MNIST.ipynb from top to bottom, with what the pipeline wrote
	jupyter nbconvert --log-level ERROR --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False \
	    --NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor \
	    --ClearMetadataPreprocessor.enabled=True \
	    --ClearMetadataPreprocessor.preserve_nb_metadata_mask="{'kernelspec', ('language_info', 'name')}" \
	    MNIST.ipynb

card: .venv/installed  ## fill in the numbers that README.md and docs/ quote, of one run
	dvc repro
	python -m tools.card

bench: .venv/installed  ## time training and dvc repro, see docs/benchmarks.md: an hour
	python -m benchmarks.bench
	python -m benchmarks.overhead

lock: .venv/installed-dev  ## compile requirements*.in to requirements*.txt, with the newest versions
	for name in requirements requirements-dev; do \
	    uv pip compile --upgrade --universal --fork-strategy fewest --python-version 3.11 \
	        --no-emit-index-url --annotation-style line --custom-compile-command "make lock" --quiet \
	        $$name.in -o $$name.txt || exit; \
	done
	for name in ai-edge-litert keras ml-dtypes numpy scipy tensorflow; do \
	    grep "^$$name==" requirements.txt | sed 's/ *#.*//'; \
	done > stages/base/versions.txt

clean:  ## remove what can be made again: data, models, the environment (not DVC's cache)
	rm -rf data/raw data/processed models metrics/details \
	    dvc_plots .venv

help:  ## list these
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, $(NEWEST)) and \
	    "Python 3.11 to 3.$(NEWEST) is needed, $(PYTHON) is %d.%d: set PYTHON, as in make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	@# So that `python stages/train.py` finds the other packages, and other folders find apps.classify.
	@echo "$(CURDIR)" >"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	@echo "Installing what $< lists (about 0.6 GB to download): half a minute to a few minutes"
	@grep '^uv==' requirements-dev.txt | $(pip) /dev/stdin 2>/dev/null || echo "Without uv: with pip"
	$(install)
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(install)
	@touch $@

# uv takes a tenth of pip's time. Where it can't be had, or doesn't find an index that only pip's
# settings name, pip does the same.
pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check -r
uv = $(BIN)/uv pip install --quiet --python $(BIN)/python -r
install = @test -x $(BIN)/uv && $(uv) $< || $(pip) $<
