# What a developer runs; CONTRIBUTING.md says when. With a virtual environment: make check PYTHON=.venv/bin/python
PYTHON ?= python
PYTEST = $(PYTHON) -m pytest -n auto --dist loadfile

.PHONY: check lint types test test-fast format

# Everything that must hold before a change is merged.
check: lint types test

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTEST)

# Only tests that are not marked slow.
test-fast:
	$(PYTEST) -m "not slow"

# Rewrite files as `make lint` wants them.
format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
