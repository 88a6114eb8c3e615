# Every target sets up what it needs: a virtual environment in .venv, kept until pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin

demo: .venv/installed
	$(BIN)/fastvit classify weights/cat.jpg --compare

# Every module, variant and oracle, on small models.
test: .venv/installed-test
	$(BIN)/pytest -q -m "not slow"

# Besides, what is exhaustive: full sizes, all variants in all formats, twenty kills, ten thousand damaged files.
test-all: .venv/installed-test
	$(BIN)/pytest -q

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-test
	$(BIN)/python benchmarks/startup.py --rounds 7
	$(BIN)/python benchmarks/reparameterize.py fastvit_t8 fastvit_sa12
	$(BIN)/python benchmarks/limit.py --quick --seconds 8
	$(BIN)/python benchmarks/against_timm.py --quick --seconds 15

bench-all: .venv/installed-test
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/reparameterize.py
	$(BIN)/python benchmarks/limit.py
	$(BIN)/python benchmarks/against_timm.py
	$(BIN)/python benchmarks/resolution.py
	$(BIN)/python benchmarks/against_peers.py
	$(BIN)/python benchmarks/ttft.py
	$(BIN)/python benchmarks/search.py
ifdef CIFAR10
	$(BIN)/python benchmarks/int8.py $(CIFAR10)
	$(BIN)/python benchmarks/datapath.py $(CIFAR10)/test
	$(BIN)/python benchmarks/embed.py $(CIFAR10)
	$(BIN)/python benchmarks/overparameterize.py $(CIFAR10) --epochs 1 --images 25600 --size 48 --threads 1 --workers 0 \
		--output benchmarks/results/overparameterize.json
else
	@echo "Left out: int8, datapath, embed and overparameterize, which need CIFAR-10: make bench-all CIFAR10=folder"
endif

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-test: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch .venv/installed $@

.PHONY: demo test test-all lint bench bench-all
