.PHONY: venv demo test test-all check bench-cpu bench-gpu
.DELETE_ON_ERROR:

BIN := .venv/bin
# two processes: most of a test's time is compilation, which uses one core
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
STAMP := .venv/.installed
# the commands under which a Python new enough may be found, first match wins
PYTHONS := python3 python3.13 python3.12 python3.11 python
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))

venv: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || for python in $(PYTHONS); do \
	  if "$$python" -c '$(SUITABLE)' 2>/dev/null; then exec "$$python" -m venv .venv; fi; \
	done; test -x $(BIN)/python || \
	  { echo "needs Python 3.11 or newer with its venv module (looked for: $(PYTHONS))" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: venv
	$(BIN)/cellvit-jax segment cellvit_jax/assets/he-consep.png --out demo-out --overwrite

test: venv
	$(PYTEST) -m "not slow"

test-all: venv
	$(BIN)/pytest

check: venv
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# the tables and the figure of docs/performance.md, on this machine
bench-cpu: venv
	$(BIN)/python benchmarks/network.py --presets cellvit_256 --tiles 256 512 1024 --compile \
	  --rounds 3 --out build/cpu.json
	$(BIN)/python benchmarks/network.py --presets cellvit_sam_b --compile --out build/cpu-sam.json
	$(BIN)/python benchmarks/roofline.py build/cpu.json build/cpu-sam.json \
	  --out build/roofline-cpu.png
	$(BIN)/python benchmarks/training_step.py --steps 3
	$(BIN)/python benchmarks/held_activations.py
	$(BIN)/python benchmarks/compile_time.py
	$(BIN)/python benchmarks/cost_analysis.py

bench-gpu: venv
	$(BIN)/python benchmarks/network.py --presets cellvit_256 cellvit_sam_h --tiles 256 1024 \
	  --batches 1 2 4 8 16 --dtypes bfloat16 --compile --out build/gpu-xla.json
	$(BIN)/python benchmarks/network.py --presets cellvit_256 cellvit_sam_h --tiles 256 1024 \
	  --batches 1 2 4 8 16 --dtypes bfloat16 --attention cudnn --no-twin --out build/gpu-cudnn.json \
	  --profile build/profile
	$(BIN)/python benchmarks/roofline.py build/gpu-xla.json build/gpu-cudnn.json \
	  --bandwidth 3350 --out build/roofline-gpu.png
	for kernel in xla cudnn; do $(BIN)/python benchmarks/training_step.py --no-twin --batch 16 \
	  --dtype bfloat16 --attention $$kernel; done
	$(BIN)/python benchmarks/compile_time.py --dtype bfloat16
