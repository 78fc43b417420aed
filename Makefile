# `make` builds .venv; `make help` lists the rest. Needs python3 (3.11 or newer), git and make.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := serve,train,dev

BUNDLE ?= ibinn/models/cifar10-small
DATA_SOURCE ?= $(or $(IBINN_SHARED),../shared)/data
DATASETS ?= cifar10 tiny-imagenet mnist
PYTEST_ARGS ?=
REPORT_ARGS ?=
BENCH_ARGS ?=
FAULTS_ARGS ?=
RECORDS_ARGS ?=
FUZZ_ARGS ?=
LOOP_ARGS ?=

export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := setup
.PHONY: setup demo serve console loop loop-serve test test-all check format proto data train-default trust-report bench bench-trust bench-server bench-records faults durability fuzz study-small clean distclean help

setup: $(STAMP) ## build .venv with the commands ibinn, ibinn-serve, ibinn-train (default)

# uv resolves torch and torchvision as the pair that constraints.txt names, and installs in parallel.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, {sys.executable} is {v.major}.{v.minor}; run: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --python $(BIN)/python --quiet --editable '.[$(EXTRAS)]' --constraint constraints.txt
	@touch $@

demo: $(STAMP) ## send images to a server with the embedded model; leaves a PNG in out/
	@$(BIN)/python -m ibinn.demo

serve: $(STAMP) ## serve the bundle BUNDLE (default: the embedded model) until Ctrl-C; records in runs/serve
	@$(BIN)/ibinn-serve --bundle $(BUNDLE) --state-dir runs/serve

console: $(STAMP) ## a web page to try the model on, with a server of its own, until Ctrl-C; records in runs/console
	@$(BIN)/python -m ibinn.console --bundle $(BUNDLE)

loop: $(STAMP) ## notice drift, hear truths, retrain, promote, recover, on MNIST: out/loop/index.html (under 15 minutes)
	@$(MAKE) --no-print-directory data DATASETS=mnist
	@$(BIN)/python -m ibinn.loop $(LOOP_ARGS)

loop-serve: $(STAMP) ## serve the records that `make loop` left, for an auditor, until Ctrl-C
	@$(BIN)/python -m ibinn.loop --serve $(LOOP_ARGS)

test: $(STAMP) ## the fast tests
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-all: $(STAMP) ## the tests that need servers, browsers or minutes
	$(BIN)/python -m pytest -m "slow" $(PYTEST_ARGS)

check: $(STAMP) ## style, types, import rules, generated code, deployment files, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check
	$(BIN)/python -m deployment.check
	$(BIN)/python .ci/audit.py

format: $(STAMP) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP) ## generate ibinn/v1 from proto/
	$(BIN)/python proto/generate.py

data: ## unpack the data sets (DATASETS) from DATA_SOURCE into data/
	@if [ -x "$(DATA_SOURCE)/unpack.sh" ]; then "$(DATA_SOURCE)/unpack.sh" data $(DATASETS); \
	else echo "no data in $(DATA_SOURCE): set IBINN_SHARED to the folder that holds data/unpack.sh; tests that need it skip"; fi

train-default: $(STAMP) data ## train the embedded model again (two cores: about two hours)
	$(BIN)/ibinn-train fit --recipe cifar10-small --data data/cifar10 --out runs/cifar10-small

trust-report: $(STAMP) data ## measure the embedded model anew: out/trust-report/report.html (tens of minutes)
	$(BIN)/ibinn-train evaluate $(BUNDLE) --data data/cifar10 --out out/trust-report $(REPORT_ARGS)

bench: $(STAMP) ## IB-INN-50 beside ResNet-50, agreement, costs, memory, serving: out/benchmarks.json (under 10 minutes)
	@mkdir -p out
	$(BIN)/python -m tests.benchmarks.bench --out out/benchmarks.json $(BENCH_ARGS)

bench-trust: $(STAMP) ## what scoring and heatmaps cost beside the forward pass: out/trust-benchmarks.json
	@mkdir -p out
	$(BIN)/python -m tests.benchmarks.bench_trust --out out/trust-benchmarks.json

bench-server: $(STAMP) ## what the server adds, keeps and withstands: out/server-benchmarks.json (under 15 minutes)
	@mkdir -p out
	$(BIN)/python -m tests.benchmarks.bench_server --out out/server-benchmarks.json $(BENCH_ARGS)

bench-records: $(STAMP) ## what records cost, and answers while their database is bad: out/records-benchmarks.json (under 6 minutes)
	@mkdir -p out
	$(BIN)/python -m tests.benchmarks.bench_records --out out/records-benchmarks.json $(RECORDS_ARGS)

faults: $(STAMP) ## signals, kills, rude callers and overload against a server: out/faults.json (3 to 8 minutes)
	$(BIN)/python -m tests.faults --out out/faults.json $(FAULTS_ARGS)

durability: $(STAMP) ## 10,000 statements under kill -9 of server and database: out/durability.json (4 to 10 minutes)
	$(BIN)/python -m tests.faults --durability --out out/durability.json $(FAULTS_ARGS)

fuzz: $(STAMP) ## mutated images, messages and connections against a server (FUZZ_ARGS="--inputs N --seed S"): out/fuzz
	$(BIN)/python -m tests.fuzz.campaign --out out/fuzz $(FUZZ_ARGS)

study-small: $(STAMP) data ## baselines and the γ series on digits and MNIST (two cores: under 30 minutes)
	$(BIN)/ibinn-train study small --data data --out runs/study-small --accelerator cpu

clean: ## remove caches and outputs (not .venv, data, runs)
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find ibinn service training tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv as well
	rm -rf .venv

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'
