# What a developer runs; CONTRIBUTING.md says when. With a virtual environment: make check PYTHON=.venv/bin/python
PYTHON ?= python
# The files in their order: those with the longest tests would otherwise come last, when one worker waits for another.
PYTEST = $(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder

PANDAS_2 ?= .pandas-2
READERS = $(patsubst %,tests/data/test_%.py,delimited_files duplicates numerals ratings series tabular text time_columns) \
	tests/recipes/test_tabular.py

.PHONY: check lint types test test-fast test-pandas-2 format docs notebooks lessons playground reference-pictures

# Everything that must hold before a change is merged.
check: lint types test test-pandas-2

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTEST)

# Only tests that are not marked slow.
test-fast:
	$(PYTEST) -m "not slow and not lessons and not site"

# The readers of tables, with the oldest pandas that torchdl allows beside the newest one.
test-pandas-2: $(PANDAS_2)
	PYTHONPATH=$(abspath $(PANDAS_2))$${PYTHONPATH:+:$$PYTHONPATH} $(PYTEST) $(READERS)

$(PANDAS_2):
	$(PYTHON) -m pip install --quiet --no-deps --target $@ pytz \
		'pandas~=2.2.0; python_version < "3.14"' 'pandas~=2.3.3; python_version >= "3.14"'

# Rewrite files as `make lint` wants them.
format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# Draw the figures again with which tests compare those of torchdl.plots; look at every changed one.
reference-pictures:
	$(PYTHON) -m pytest tests/plots/test_figures.py -k reference --write-references

# The site, in site/: it needs torchdl[docs], and no network. SPHINXOPTS=-Dplot_gallery=0 runs no lesson. It has the
# playground where `npm ci --prefix docs/playground` was run, and torchdl[export] is installed.
docs:
	if [ -d docs/playground/node_modules ]; then $(MAKE) playground; fi
	OMP_NUM_THREADS=1 $(PYTHON) -m sphinx --fail-on-warning --keep-going --jobs 2 -d .doctrees $(SPHINXOPTS) docs site
	$(PYTHON) -m pytest -n 2 -m site tests/docs

# Every lesson as a notebook, in docs/learn/: it needs torchdl[docs]. Open them with: jupyter lab docs/learn
notebooks:
	$(PYTHON) docs/extensions/notebooks.py

# Every lesson's notebook in an empty folder, and its exercises: as they stand, solved, and with wrong answers.
lessons:
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -m lessons tests/docs

# A page that runs networks in the browser; more options: python docs/playground/build.py --help.
playground:
	$(PYTHON) docs/playground/build.py --out site/playground
