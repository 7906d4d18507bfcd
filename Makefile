# `make demo`: from nothing to a report. `make test`: everything that CI checks. Both need Python 3.11 or newer and a
# package registry, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
ALERTS ?= 2000

.PHONY: demo test lint docs model clean

demo: $(VENV)/installed
	mkdir -p $(DEMO)
	$(BIN)/rbstream simulate $(DEMO)/night.avro --alerts $(ALERTS) --seed 1
	$(BIN)/rbstream replay $(DEMO)/night.avro --device cpu -o $(DEMO)/filtered.avro --scores $(DEMO)/scores.csv \
		--rejects $(DEMO)/rejects.avro --report $(DEMO)/report.html
	@echo "Open $(abspath $(DEMO)/report.html) in a browser."

# A process that crashes ends the run and names its test: pytest-xdist 3.8 waits for ever with another in its place.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup --max-worker-restart 0

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What is made from declarations: pages, dashboards, alert rules, the chart's schema and table of values.
docs: $(VENV)/installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python deploy/generate.py
	$(BIN)/python deploy/chart/generate.py

# The default bundle, from its recipe.
model: $(VENV)/installed-dev
	$(BIN)/python models/recipe.py -o models/rbnet.pt

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) build dist
