.PHONY: venv demo test test-all check bench-cpu bench-gpu
.DELETE_ON_ERROR:

BIN := .venv/bin
# two processes: most of a test's time is compilation, which uses one core
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
STAMP := .venv/.installed
# the commands under which a Python new enough may be found, first match wins
PYTHONS := python3 python3.13 python3.12 python3.11 python
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))

venv: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || for python in $(PYTHONS); do \
	  if "$$python" -c '$(SUITABLE)' 2>/dev/null; then exec "$$python" -m venv .venv; fi; \
	done; test -x $(BIN)/python || \
	  { echo "needs Python 3.11 or newer with its venv module (looked for: $(PYTHONS))" >&2; exit 1; }
	$(INSTALL) '.[dev]'
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

# a further extra
.venv/.with-%: $(STAMP)
	$(INSTALL) '.[$*]'
	@touch $@

# the tables and the figure of docs/performance.md, on this machine
bench-cpu: .venv/.with-bench
	$(BIN)/python benchmarks/network.py --presets cellvit_256 --tiles 256 512 1024 --compile \
	  --rounds 3 --out build/cpu.json
	$(BIN)/python benchmarks/network.py --presets cellvit_sam_b --compile --out build/cpu-sam.json
	$(BIN)/python benchmarks/roofline.py build/cpu.json build/cpu-sam.json \
	  --out docs/images/roofline-cpu.png
	$(BIN)/python benchmarks/training_step.py --steps 3
	$(BIN)/python benchmarks/held_activations.py
	$(BIN)/python benchmarks/collectives.py
	$(BIN)/python benchmarks/compile_time.py --presets cellvit_256 cellvit_sam_h
	$(BIN)/python benchmarks/cost_analysis.py

# that of PyTorch's wheels: both bring cuDNN, which has one place in an environment
CUDA := cuda13
# GB/s, of an H200
BANDWIDTH := 4800
HAS_GPU := import sys, jax; sys.exit(None if jax.default_backend() == "gpu" else \
  "bench-gpu measures a GPU, and JAX finds none: see its driver, and the warnings above")

bench-gpu: .venv/.with-bench .venv/.with-$(CUDA)
	@$(BIN)/python -c '$(HAS_GPU)'
	$(BIN)/python benchmarks/network.py --presets cellvit_256 cellvit_sam_h --tiles 256 1024 \
	  --batches 1 2 4 8 16 --dtypes bfloat16 --compile --out build/gpu-xla.json
	$(BIN)/python benchmarks/network.py --presets cellvit_256 cellvit_sam_h --tiles 256 1024 \
	  --batches 1 2 4 8 16 --dtypes bfloat16 --attention cudnn --no-twin --out build/gpu-cudnn.json \
	  --profile build/profile
	$(BIN)/python benchmarks/roofline.py build/gpu-xla.json build/gpu-cudnn.json \
	  --bandwidth $(BANDWIDTH) --out build/roofline-gpu.png
	$(BIN)/python benchmarks/training_step.py --batch 16 --dtype bfloat16
	$(BIN)/python benchmarks/training_step.py --batch 16 --dtype bfloat16 --attention cudnn --no-twin
	$(BIN)/python benchmarks/compile_time.py --dtype bfloat16
