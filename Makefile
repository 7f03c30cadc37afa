# Two commands for a new user: `make demo` and `make test`. Each makes its own environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
RUN := runs/demo
DATA ?= starter
RECIPE ?= recipes/demo.yaml
SECONDS ?= 8

# One process for each core, and one thread in each: threads of several processes would wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto
CLIENTS := runs/clients
CLIENT_ENVIRONMENTS := $(patsubst tests/serving/clients/requirements/%.txt,$(CLIENTS)/%/ready,\
	$(wildcard tests/serving/clients/requirements/*.txt))
KERNELS := setup.py $(wildcard prefrank/native/*.cpp prefrank/native/*.h)

.PHONY: help install demo test test-all test-clients fuzz check bench bench-evaluation bench-score bench-train bench-memory bench-decoders bench-serve weights lock clean

help:
	@echo "make demo      train a small reward model on the starter comparisons, evaluate it, rank the card's example"
	@echo "               (DATA=anthropic_rlhf or DATA=path/to/comparisons.jsonl uses real comparisons)"
	@echo "make test      lint, types and the whole suite"
	@echo "make test-all  the slow tests too, and test-clients"
	@echo "make test-clients  ask a server with other projects' client packages and TRL, which it installs for itself"
	@echo "make fuzz      break files at random and run everything on them (FUZZ_SECONDS=600; prints its seeds)"
	@echo "make bench     quality on HH and grouped against pairwise training (needs the data, takes about two hours)"
	@echo "make bench-evaluation  a model, a length-biased one and the baselines in one report (needs the data, 45 minutes)"
	@echo "make bench-score   scoring speed beside the peers, which it installs for itself (needs the data, about an hour)"
	@echo "make bench-train   training beside the peers, which it installs for itself (needs the data, about 25 minutes)"
	@echo "make bench-decoders  decoders beside the peers, which it installs for itself (needs the data, 25 minutes)"
	@echo "make bench-serve  the server beside other servers, which it installs for itself (25 minutes; SECONDS=8 a load)"
	@echo "make weights   SmolLM2-135M-Instruct and all-mpnet-base-v2 under runs/bases, for benchmarks and examples"
	@echo "make bench-memory  memory of the 1.5B shape and of large groups, time to the first score"

$(READY): requirements.lock pyproject.toml $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; run: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Installing into $(VENV) (once; a few minutes with the packages to download)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

install: $(READY)

demo: $(READY)
	@$(BIN)/prefrank train $(RECIPE) --set output_dir=$(RUN) --set 'datasets=$(DATA)' --overwrite
	@$(BIN)/prefrank evaluate --model demo=$(RUN) --data '$(DATA):eval' --suite probes --html $(RUN)-report.html
	@$(BIN)/prefrank rank --model $(RUN) --prompt "I just got out of prison, any suggestion?" \
		--reply "I'm sorry to hear about it, it must be a hard time inside" \
		--reply "Stay away from me, you scumbag convict"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(PYTEST) -m "not slow"

test-all: check
	$(PYTEST)
	$(MAKE) test-clients

$(CLIENTS)/%/ready: tests/serving/clients/requirements/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

test-clients: $(READY) $(CLIENT_ENVIRONMENTS)
	OMP_NUM_THREADS=1 PREFRANK_CLIENTS=$(CLIENTS) PREFRANK_SCHEMATHESIS=$(CLIENTS)/schemathesis/bin/schemathesis \
		$(BIN)/pytest tests/serving/clients tests/faults/test_description.py tests/serving/test_rewards_trl.py

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz -n auto

bench: $(READY)
	$(BIN)/python benchmarks/hh_quality.py
	$(BIN)/python benchmarks/oasst_groups.py

bench-evaluation: $(READY)
	$(BIN)/python benchmarks/evaluation_report.py
	$(BIN)/python benchmarks/evaluation_cost.py

bench-score: $(READY)
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/cores.py

bench-train: $(READY)
	$(BIN)/python benchmarks/train.py

bench-memory: $(READY)
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/group_memory.py

weights: $(READY)
	$(BIN)/python benchmarks/weights.py

bench-decoders: weights
	$(BIN)/python benchmarks/decoders.py

bench-serve: weights
	$(BIN)/python benchmarks/serve.py --seconds $(SECONDS)

lock: $(READY)
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) runs build dist *.egg-info prefrank/native/*.so
