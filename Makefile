# `make run` trains and evaluates on embedded data, `make app` serves the page, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROCESSES ?= 2

.PHONY: run app test test-slow faults fuzz fuzz-guided test-oldest coverage check docs pages screenshots clean

run: $(STAMP)
	$(BIN)/litevit train quickstart

app: $(STAMP)
	$(BIN)/litevit app $(if $(wildcard runs),--run runs)

# One thread a process: two processes of two threads on two cores take twice as long, for each waits for the other's.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile

# `make test-slow SLOW="tests/parity tests/interop"`: some of them.
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile -m slow $(SLOW)

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/checkpoints tests/datasets tests/engine tests/reports tests/recipes tests/jobs tests/adapters
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

# The site, with every cell run (minutes; what has not changed is kept). `make docs SPHINXOPTS="-D nb_execution_mode=off"`: text alone.
docs: $(STAMP)
	$(BIN)/python -m sphinx -q -W --keep-going $(SPHINXOPTS) -b html docs docs/_build/html

# Kills, full disks, damaged files and the rest at their whole number; writes the table of docs/faults.md.
faults: $(STAMP)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults

# 229,000 hostile inputs. `make fuzz OUT=FOLDER MINUTES=4`: so many minutes at a time, the next start goes on.
fuzz: $(STAMP)
	cd tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m hostile.fuzz $(if $(INPUTS),--inputs $(INPUTS)) $(if $(OUT),--out $(abspath $(OUT))) $(if $(MINUTES),--minutes $(MINUTES))

# Guided by coverage (atheris), so many SECONDS a kind.
fuzz-guided: $(STAMP)
	cd tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m hostile.guided $(if $(SECONDS),--seconds $(SECONDS))

pages: $(STAMP)
	$(BIN)/python docs/mechanisms/build.py

# The pictures of docs/app.md, from models trained here (minutes) and a Chromium.
screenshots: $(STAMP)
	$(BIN)/python docs/site/screenshots.py

# The default tests with the lower bounds of pyproject.toml, in an environment of their own that is deleted after.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct -e ".[train,data,parquet,coco,video,heic,onnx,app,explain]"
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python pytest pytest-timeout pytest-xdist hypothesis torchmetrics pycocotools webdataset scikit-learn httpx peft captum
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -n $(PROCESSES) --dist loadfile
	rm -rf .venv-oldest

check: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks docs/conf.py docs/site docs/mechanisms/build.py
	$(BIN)/ruff check src tests benchmarks docs/conf.py docs/site docs/mechanisms/build.py
	$(BIN)/mypy
	$(BIN)/codespell src tests docs benchmarks README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/python -m pytest -q tests/test_architecture.py

$(STAMP): pyproject.toml
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'litevit needs Python 3.11 or newer, this is ' + sys.version"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache docs/_build docs/generated
