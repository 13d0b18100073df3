# Each target sets up what it needs: a virtual environment with pinned versions, made once.
PYTHON ?= python3
CORES ?= logical
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench
BROWSER_READY := $(VENV)/.ready-browser
CHROMIUM := /usr/bin/chromium
# A Python for ARM, which QEMU runs, and what compiles for it.
ARM_READY := build/arm/.ready
ARM_TOOLS := /usr/bin/qemu-aarch64 /usr/bin/aarch64-linux-gnu-gcc /usr/aarch64-linux-gnu/include/stdlib.h
# Fresh environments for the wheel: what searches without torch, and what trains.
SMOKE := build/smoke
# The oldest Triton that kernels are compiled with, beside the pinned one.
OLDER_TRITON := build/triton36
# What `hatch_build.py` compiles.
KERNELS := matmamba_common/native/instructions.h matmamba_common/native/instructions.c \
	matmamba_vision/native/kernels.c retrieval/matmamba_retrieval/index/best_rows.c
# Tests are dealt to a process for each core, each with one thread; a process takes up to 1.5 GB.
SPREAD = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --maxprocesses 8 --dist worksteal
# What Python compiled is kept, whatever the shell says: tests start hundreds of processes that load it.
unexport PYTHONDONTWRITEBYTECODE
BENCHMARKS ?= block_time transformers_mixer against_vit width_time training_step compiled_block peak_memory nested_cost latency
# These once more on one thread, which waits for no other: on a shared machine the steadier figure.
ONE_THREAD ?= $(filter against_vit width_time latency,$(BENCHMARKS))

.PHONY: demo serve test coverage test-timm browser arm qdrant slow cluster smoke lint format docs record readme bench kernels native clean

demo: $(READY)  ## train, index and search handwritten digits; report in runs/demo
	$(BIN)/matmamba demo $(FLAGS)

serve: $(READY)  ## serve the demo's gallery, with a page to search it at http://127.0.0.1:8765/; others: FLAGS="--gallery G"
	@test -d runs/demo/gallery || { echo "there is no runs/demo/gallery: make demo makes it"; exit 1; }
	$(BIN)/matmamba serve --gallery digits=runs/demo/gallery $(FLAGS)

test: $(READY)  ## all tests that need nothing special, on all cores; on some: CORES=2
	$(SPREAD) $(FLAGS)

coverage: $(READY)  ## the same, and which share of the packages' lines they run
	$(SPREAD) --cov --cov-report= $(FLAGS)
	@echo "coverage: $$($(BIN)/python -m coverage report --format=total) % of lines"

test-timm: $(READY)  ## timm's own tests of models, fetched in the installed version, on every variant
	$(BIN)/python tests/timm_contract.py $(FLAGS)

browser: $(BROWSER_READY) $(CHROMIUM)  ## the service's page in Chromium: a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser $(FLAGS)

arm: $(ARM_READY)  ## the kernels in C and searches without torch on an emulated ARM machine: some minutes
	$(BIN)/python benchmarks/arm.py $(FLAGS)

qdrant: $(READY)  ## the tests of pushed galleries on a real server: make qdrant QDRANT_URL=http://localhost:6333
	@test -n "$(QDRANT_URL)" || { echo "name a server: make qdrant QDRANT_URL=http://localhost:6333"; exit 1; }
	QDRANT_URL=$(QDRANT_URL) $(BIN)/python -m pytest -m cluster tests/retrieval/backends $(FLAGS)

slow: $(READY)  ## the long tests
	$(BIN)/python -m pytest -m slow $(FLAGS)

cluster: $(READY)  ## several machines, as network namespaces (needs root and iproute2), or a service that is named
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster $(FLAGS)

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

smoke: $(READY)  ## build the wheel, install it into fresh environments, without torch and with it, and try it there
	rm -rf $(SMOKE)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(SMOKE)/wheel .
	for extra in torch query; do \
		$(PYTHON) -m venv $(SMOKE)/$$extra && \
		$(SMOKE)/$$extra/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt \
			"$$(ls $(SMOKE)/wheel/*.whl)[$$extra]" && \
		$(SMOKE)/$$extra/bin/python -P tests/smoke_$$extra.py $(SMOKE)/kept || exit 1; \
	done
	rm -rf $(SMOKE)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## the site of docs/ in site/, without a network; a broken link or an unknown name is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

record: $(READY)  ## keep the results of the last demo, and bring README and docs up to date
	$(BIN)/python benchmarks/readme.py --record runs/demo

readme: $(READY)  ## write the tables of README and docs, and benchmarks/README.md, from benchmarks/results
	$(BIN)/python benchmarks/readme.py

bench: $(BENCH_READY)  ## measure on this machine, and write benchmarks/README.md; a part: BENCHMARKS=latency
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py $(FLAGS) || exit 1; done
	for name in $(ONE_THREAD); do \
		$(BIN)/python benchmarks/$$name.py --threads 1 --output benchmarks/results/$${name}_1_thread.json $(FLAGS) || exit 1; \
	done
	$(BIN)/python benchmarks/report.py

kernels: $(READY)  ## compile every launch of the GPU's kernels by two versions of Triton, without a GPU; goes on where it was stopped
	test -d $(OLDER_TRITON) || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(OLDER_TRITON) 'triton==3.6.*'
	$(BIN)/python benchmarks/compiled_kernels.py --also $(OLDER_TRITON) $(FLAGS)

clean:
	rm -rf $(VENV) build runs site .pytest_cache .mypy_cache .ruff_cache

native: $(READY)  ## compile the kernels in C again; `make test` and others do it when their source changes
	$(BIN)/python hatch_build.py

$(READY): pyproject.toml constraints.txt hatch_build.py $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV): a few minutes, 2.5 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c 'import timm' 2> /dev/null || $(BIN)/python datasets/matmamba_datasets/torchvision_startup.py
	@touch $@

$(BROWSER_READY): $(READY)  # what drives a browser
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@touch $@

$(CHROMIUM):  # Debian's, where apt-get may install
	@{ apt-get update -qq && apt-get install -qq --no-install-recommends chromium; } > /dev/null 2>&1 \
		|| { echo "$@ is missing, and apt-get cannot install it here: install Debian's package chromium"; exit 1; }

$(ARM_TOOLS) &:  # Debian's, where apt-get may install
	@{ apt-get update -qq && apt-get install -qq --no-install-recommends qemu-user gcc-aarch64-linux-gnu \
		libc6-dev-arm64-cross; } > /dev/null 2>&1 || { echo "apt-get cannot install these here: install Debian's \
	packages qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"; exit 1; }

$(ARM_READY): $(READY) benchmarks/arm_machine.py constraints.txt | $(ARM_TOOLS)  # 280 MB: Debian's Python for ARM, and packages
	$(BIN)/python benchmarks/arm_machine.py

$(BENCH_READY): $(READY)  # the libraries that are measured beside ours
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
