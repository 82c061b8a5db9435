# `make help` lists what there is to make. Each line can also be typed by hand: see README.md.

PYTHON ?= python3
BIN := .venv/bin
# Stages and DVC run in this environment, whatever else is on the machine.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := run
.PHONY: run fast short best experiments search cluster draw undo test test-all lint plots notebook card bench mutants lock clean help

run: .venv/installed  ## run what has changed (on digits if MNIST cannot be reached), show the result
	@python -m tools.run

fast:  ## try a small network, one epoch: seconds
short:  ## try the default's network, trained for 3 epochs only
best:  ## try a wider network
fast short best: .venv/installed
	@set -f; python -m tools.run $$(cat presets/$@.txt)

experiments: .venv/installed  ## show all experiments side by side
	@dvc exp show --no-pager --only-changed --keep 'accuracy|corrupt|val_loss' --drop 'Created|errors|loss|ece|undisputed|train$$|val$$|std|.*/.*'

search: .venv/installed  ## search for better params: hours, see docs/scaling.md
	@grep '^optuna' requirements-scaling.txt | python -m pip install --quiet -r /dev/stdin
	@python -m tools.search

draw: .venv/installed  ## open the page to draw on, with the trained network in it
	@dvc repro --quiet apps/dvc.yaml:export
	@echo "Opening models/exported/draw.html in a browser"
	@python -m webbrowser "file://$(CURDIR)/models/exported/draw.html"

undo: .venv/installed  ## discard an experiment: back to the committed params, results and network
	@python -m tools.undo

cluster: .venv/installed  ## train one network with two workers, as on two hosts
	@python -m tools.cluster --workers 2 python -m stages.train --seed 0

test: .venv/installed  ## run the tests (under 3 minutes on 2 cores)
	pytest

test-all: .venv/installed  ## run all tests, the long ones too
	pytest -m ""

lint: .venv/installed  ## check style
	ruff check .
	ruff format --check .

plots: .venv/installed  ## draw the results as a page, dvc_plots/index.html
	dvc plots show

# Nothing that differs between two runs stays in the file: no times, no versions of Python.
notebook: .venv/installed  ## run MNIST.ipynb from top to bottom, with what the pipeline wrote
	jupyter nbconvert --log-level ERROR --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False \
	    --NotebookExporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor \
	    --ClearMetadataPreprocessor.enabled=True \
	    --ClearMetadataPreprocessor.preserve_nb_metadata_mask="{'kernelspec', ('language_info', 'name')}" \
	    MNIST.ipynb

card: .venv/installed  ## fill in the numbers that README.md and docs/ quote, from the last run
	python -m tools.card

bench: .venv/installed  ## time training and dvc repro, see docs/benchmarks.md: hours
	python -m benchmarks.bench
	python -m benchmarks.overhead

mutants: .venv/installed  ## put faults into the code that computes, list those that no test notices
	pip install --quiet mutmut==3.8.1
	mutmut run
	mutmut results

lock: .venv/installed  ## compile requirements.in to requirements.txt, with the newest versions
	pip install --quiet uv
	uv pip compile --upgrade --universal --fork-strategy fewest --python-version 3.11 \
	    --no-emit-index-url --annotation-style line --custom-compile-command "make lock" --quiet \
	    requirements.in -o requirements.txt

clean:  ## remove what can be made again: data, models, the environment (not DVC's cache)
	rm -rf data/raw data/processed data/environment.txt models metrics/details plots/vega.js \
	    dvc_plots .venv

help:  ## list these
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and \
	    "Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d: set PYTHON, as in make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	@echo "Installing what requirements.txt lists (about 1 GB to download): a few minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@
