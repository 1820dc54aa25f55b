# Every target makes its own set-up first: `make demo` and `make test` work on a fresh Debian-like machine.
SHELL := /bin/bash
.DEFAULT_GOAL := help

BIN := .venv/bin
CLUSTER := $(BIN)/python -m testcluster
NODES ?= 2
GPUS ?= 2

.PHONY: help demo test test-fast bench-step bench-loader bench-scale bench-data bench-parity bench-accuracy bench-recovery gpu-check chaos \
  chaos-cluster model-check fault-api lint format generate dashboard-preview docs venv constraints lowest \
  binaries cluster-up cluster-down clean

help: ## Show the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18

demo: venv ## Train, distil, preempt, recover and draw the board on a real one-machine Kubernetes (KEEP=1 keeps it).
	@$(BIN)/python -m digits.demo

test: venv ## Run every test; ARGS goes to pytest, as in make test ARGS="-p randomly" for a random order.
	@if [ "$$(id -u)" = 0 ] && command -v go >/dev/null; then $(CLUSTER) binaries; fi
	@scripts/clean_home.sh scripts/test.sh $(ARGS)

test-fast: venv ## Run the tests that need neither root nor Kubernetes.
	@scripts/clean_home.sh scripts/test.sh --fast $(ARGS)

bench-step: venv ## Time a training step against Ultralytics' own (about ten minutes).
	@$(BIN)/python -m benchmarks.bench.step $(ARGS)

bench-loader: venv ## Compare the data loader's images/s of a core with Ultralytics' loader (some minutes).
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m benchmarks.bench.loader $(ARGS)

bench-scale: venv ## Measure a step on 1, 2 and 4 ranks, and predict it on GPU nodes (about five minutes).
	@$(BIN)/python -m benchmarks.bench.scale $(ARGS)

bench-data: venv ## Measure start-up and memory with 118,000 images: make bench-data ARGS="--before REVISION" (half an hour).
	@$(BIN)/python -m benchmarks.bench.startup $(ARGS)

gpu-check: venv ## Check everything that needs GPUs, on a machine that has some (ten minutes): ARGS="--only overlap".
	@$(BIN)/python -m benchmarks.gpucheck $(ARGS)

bench-parity: venv ## Compare mAP with Ultralytics' own trainer: make bench-parity RESULTS=DIR SEEDS="0 1 2" ARGS="--variants NAME".
	@$(BIN)/python -m benchmarks.accuracy.parity --seeds $(or $(SEEDS),0 1 2) $(if $(RESULTS),--results $(RESULTS)) $(ARGS)

bench-accuracy: venv ## Compare recipes on mAP: make bench-accuracy TASK=detect SCENARIO=scratch SEEDS=5 (DATA_SEED=0 SIZE=quick).
	@$(BIN)/python -m benchmarks.accuracy --task $(or $(TASK),detect) --scenario $(or $(SCENARIO),scratch) \
	  --seeds $$(seq 0 $$(($(or $(SEEDS),5) - 1))) --data-seed $(or $(DATA_SEED),0) --size $(or $(SIZE),quick) $(ARGS)

lint: venv ## ruff, mypy, import-linter, helm lint, kube-score, checkov, generated files, shellcheck, hadolint.
	@scripts/lint.sh

format: venv ## Format the Python code.
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

generate: venv ## Write the generated files: CRD, reference, reasons, commands, boards.
	@scripts/generate.sh

docs: venv ## Build the documentation site into build/site; a link that leads nowhere is an error.
	@scripts/docs.sh build/site

venv: .venv/.stamp ## Make .venv.

.venv/.stamp: pyproject.toml constraints.txt overrides.txt scripts/venv.sh
	@scripts/venv.sh
	@touch $@

constraints: venv ## Pin the newest versions that pyproject.toml allows.
	@$(BIN)/uv pip compile --quiet --upgrade --all-extras --python-version 3.11 --no-header --no-annotate \
	  --overrides overrides.txt --output-file constraints.txt pyproject.toml

lowest: venv ## Import the trainer with the lowest versions that pyproject.toml allows (TORCH=1: of torch, too).
	@scripts/lowest.sh

binaries: venv ## Build Kubernetes and get what the one-machine cluster needs (cached).
	@$(CLUSTER) binaries

cluster-up: venv ## Start the one-machine cluster: make cluster-up NODES=2 GPUS=2.
	@$(CLUSTER) up --nodes $(NODES) --gpus $(GPUS)

cluster-down: venv ## Stop it and clean up.
	@$(CLUSTER) down

dashboard-preview: venv ## Draw both boards into docs/pictures, after a preemption of a real job (about 15 minutes; TEACHER=weights.pt).
	@folder=$$(mktemp -d) && OMP_NUM_THREADS=1 $(BIN)/python -m dashboards.preview all $$folder/fleet \
	  $(if $(TEACHER),--teacher $(TEACHER)) $(ARGS) ; status=$$? ; rm -rf $$folder ; exit $$status

chaos: venv ## Kill a small run at random moments; it ends bitwise equal: make chaos N=50 SEED=0 PER_RUN=10 EPOCHS=6.
	@$(BIN)/python -m benchmarks.chaos.local --kills $(or $(N),50) --seed $(or $(SEED),0) --per-run $(or $(PER_RUN),10) \
	  --epochs $(or $(EPOCHS),6)

chaos-cluster: venv ## Disrupt a job on the one-machine cluster; no work is lost: make chaos-cluster N=20 SEED=0 (KEEP=1).
	@$(BIN)/python -m benchmarks.chaos.cluster --disruptions $(or $(N),20) \
	  --seed $(or $(SEED),0)

model-check: venv ## Search all orders of events for a broken promise: make model-check STATES=1000000 LIMIT=7200 FAULTS=3.
	@$(BIN)/python -m benchmarks.modelcheck --states $(or $(STATES),1000000) --seconds $(or $(LIMIT),7200) \
	  --faults $(or $(FAULTS),3) $(ARGS)

fault-api: venv ## Crash the operator, disturb the API server, change specs: make fault-api SEED=0 LIVES=20 TIMES=3 MUTATIONS=500.
	@$(BIN)/python -m benchmarks.faultapi --seed $(or $(SEED),0) --lives $(or $(LIVES),20) --times $(or $(TIMES),3) \
	  --mutations $(or $(MUTATIONS),500) $(ARGS)

bench-recovery: venv ## Measure checkpoints and recovery: make bench-recovery SAVES=15 RECOVERIES=5 PERIOD=120 DISRUPTIONS=3.
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m benchmarks.bench.recovery --saves $(or $(SAVES),15) \
	  --recoveries $(or $(RECOVERIES),5) --period $(or $(PERIOD),120) --disruptions $(or $(DISRUPTIONS),3)

clean: ## Remove what builds and tests made in the checkout.
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
