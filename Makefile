# Every target sets up what it needs: a virtual environment in .venv, kept until pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin

demo: .venv/installed
	$(BIN)/fastvit classify weights/cat.jpg --compare

test: .venv/installed-test
	$(BIN)/pytest -q

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-test
	$(BIN)/python benchmarks/fold.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch .venv/installed $@

.PHONY: demo test lint bench
