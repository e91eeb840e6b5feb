"""Time, memory and compilation of the networks, beside a twin in PyTorch, in turns in one run.

    python benchmarks/network.py [--presets cellvit_256 cellvit_sam_b] [--tiles 256] [--batches 1]

A row is a preset, a tile, a batch and a type. Timed is the inference form that `segment` runs;
"readable" is the form of `models` without it, the twin (`twin_network.py`, where torch is
installed) runs eagerly as the original does, in channels-last order, and, with `--compile`, through
torch.compile. bfloat16 means autocast for the twin. Weights are random; both sides share them,
which their outputs must show. The matmul peak is that of the same run and type. mm²/s are those of
whole tiles at 0.25 µm a pixel. FLOPs are counted as `cost_analysis.py` does; MB are what the
compiled program says that it needs for weights, images and work. `--attention cudnn` chooses the
kernel of CUDA. A row that does not fit into memory, or that its kernel refuses, says so, and the
others go on. On one core (`taskset -c 0`) the processor's time is taken, which other programs
hardly change; on several it is the time that passes.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from cost_analysis import costs
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from timing import beside_torch, in_turns, load, quartiles, ratio, spread

from cellvit_jax.inference.memory import is_exhausted
from cellvit_jax.models import CellViT, ModelConfig, folded

CORES = len(os.sched_getaffinity(0))
CLOCK = time.process_time if CORES == 1 else time.perf_counter
MPP = 0.25  # µm a pixel
DType = Literal["float32", "bfloat16"]
COLUMNS = (
    "preset", "tile", "batch", "type", "ms a tile", "tiles/s", "mm²/s", "TFLOP/s", "of peak",
    "of readable", "of eager", "of channels-last", "of compiled", "MB", "compile s, cold", "warm",
)  # fmt: skip


def main(
    presets: tuple[str, ...] = ("cellvit_256", "cellvit_sam_b"),
    tiles: tuple[int, ...] = (256,),
    batches: tuple[int, ...] = (1,),
    dtypes: tuple[DType, ...] = ("float32",),
    attention: str = "xla",
    rounds: int = 5,
    compile: bool = False,
    twin: bool = True,
    out: Path | None = None,
    profile: Path | None = None,
) -> None:
    """Print the table, as Markdown; with `out`, write its numbers as JSON for `roofline.py`.

    With `profile`, three calls of each row are traced into that folder (TensorBoard, Perfetto).
    """
    twin = beside_torch(twin)
    print(f"{jax.devices()[0].device_kind}, {load()}, jax {jax.__version__}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    peaks = {dtype: matmul_peak(dtype) for dtype in dtypes}
    rows = []
    for dtype, preset, side, batch in product(dtypes, presets, tiles, batches):
        key = preset, side, batch, dtype
        traced = profile and profile / "-".join(map(str, key))
        try:
            found = Case(*key, attention).measure(rounds, compile, twin, traced)
        except RuntimeError as error:  # of JAX or PyTorch: others may fit
            print(line([*key, reason(error)]), flush=True)
            continue
        rows.append({"preset": preset, "tile": side, "peak": peaks[dtype]} | found)
        print(row(key, found, peaks[dtype]), flush=True)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(rows, indent=1))


def reason(error: RuntimeError) -> str:
    """Why a row has no figures: memory, or what a kernel says of shapes or of this device."""
    return "out of memory" if is_exhausted(error) else str(error).partition("\n")[0]


class Case:
    """One row of the table."""

    def __init__(self, preset: str, side: int, batch: int, dtype: str, attention: str):
        self.side, self.batch, self.dtype = side, batch, dtype
        config = getattr(ModelConfig, preset)()
        model = CellViT(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
        self.model = nnx.view(model, deterministic=True, use_running_average=True)
        self.form = folded(self.model, attention=attention)
        shape = batch, side, side, 3
        self.images = np.random.default_rng(0).standard_normal(shape, np.float32)

    def measure(
        self, rounds: int, compile: bool, twin: bool, profile: Path | None
    ) -> dict[str, Any]:
        """Times by name, in ms a batch, and what the compiled program says of itself."""
        twin = twin and self.model.config.encoder != "dinov2"
        calls = twins(self, compile) if twin else {}
        calls["ours"], facts = compiled(self.form, self.images)
        calls["readable"], _ = compiled(self.model, self.images)
        first = {name: call() for name, call in calls.items()}
        for name, maps in first.items():
            compare(name, maps, first["readable"], 1e-4 if self.dtype == "float32" else 0.1)
        times = in_turns(calls, rounds, CLOCK)
        if profile:
            trace(calls["ours"], profile)
        flops = costs(self.form, self.images.shape)["flops"]
        return facts | {"times": times, "flops": flops, "batch": self.batch}


def trace(call: Callable[[], Any], folder: Path) -> None:
    """A profile of three calls."""
    with jax.profiler.trace(folder):
        for _ in range(3):
            call()


def row(key: tuple[str, int, int, str], found: dict[str, Any], peak: float) -> str:
    """A line of the table."""
    _, side, batch, _ = key
    ours = found["times"]["ours"]
    tile = [t / batch for t in ours]
    tiles = 1e3 / quartiles(tile)[1]
    rate = found["flops"] / batch * tiles
    others = ("readable", "eager", "channels-last", "compiled")
    ratios = [ratio(ours, found["times"][n]) if n in found["times"] else "–" for n in others]
    return line([
        *key, spread(tile), f"{tiles:.3g}", f"{tiles * (side * MPP / 1e3) ** 2:.2g}",
        f"{rate / 1e12:.3f}", f"{rate / peak:.2f}", *ratios,
        f"{found['memory'] / 1e6:.0f}", f"{found['cold']:.1f}", f"{found['warm']:.1f}",
    ])  # fmt: skip


def line(cells: list[Any]) -> str:
    """A line of the table, whatever it lacks."""
    return f"| {' | '.join(map(str, [*cells, *[''] * (len(COLUMNS) - len(cells))]))} |"


def compiled(model: CellViT, images: np.ndarray) -> tuple[Callable[[], Any], dict[str, float]]:
    """The network as a call that ends when the maps are there, and facts of its program."""
    graphdef, state = nnx.split(model)
    state, images = jax.device_put((nnx.to_pure_dict(state), images))
    cold, warm, program = compile_twice(lambda s, x: nnx.merge(graphdef, s)(x), state, images)
    memory = program.memory_analysis()
    facts = {
        "bytes": program.cost_analysis()["bytes accessed"],
        "memory": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
        "cold": cold,
        "warm": warm,
    }
    return lambda: jax.block_until_ready(program(state, images)), facts


def compile_twice(function: Callable, *inputs: Any) -> tuple[float, float, Any]:
    """Seconds to compile with an empty cache of programs, then with a full one, and the program."""
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        for _ in range(2):
            jax.clear_caches()
            compilation_cache.reset_cache()
            start = time.perf_counter()
            program = jax.jit(function).lower(*inputs).compile()
            seconds.append(time.perf_counter() - start)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    return *seconds, program


def twins(case: Case, compile: bool) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """The forms of the twin as calls, by name."""
    import torch
    from twin_network import device, twin

    torch.set_num_threads(CORES)
    torch.compiler.reset()  # it compiles anew for some rows, and then no more
    torch.cuda.empty_cache()  # of the row before
    images = torch.from_numpy(case.images).permute(0, 3, 1, 2).contiguous().to(device())
    networks = {
        "eager": twin(case.model, case.side),
        "channels-last": twin(case.model, case.side, channels_last=True),
    }
    if compile:
        networks["compiled"] = torch.compile(networks["channels-last"])

    def call(network: Callable) -> dict[str, np.ndarray]:
        half = case.dtype == "bfloat16"
        with torch.no_grad(), torch.autocast(device(), torch.bfloat16, half):
            maps = network(images)
        if device() == "cuda":
            torch.cuda.synchronize()
        return maps

    return {name: lambda network=network: call(network) for name, network in networks.items()}


def compare(name: str, found: dict, expected: dict, tolerance: float) -> None:
    """The maps of a form against those of the readable one."""
    for key, values in expected.items():
        if key in found:
            other = found[key]
            if not isinstance(other, jax.Array):
                other = other.float().cpu().permute(0, 2, 3, 1).numpy()
            error = np.abs(np.asarray(values) - other).max() / np.abs(values).max()
            assert error <= tolerance, f"{key} of {name} differs by {error:.1e} of the maximum"


def matmul_peak(dtype: DType) -> float:
    """FLOP/s of a large product in that type, the best of some."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    times = in_turns({"product": lambda: jax.block_until_ready(product(a))}, 9, CLOCK)["product"]
    return 2 * side**3 / (min(times) / 1e3)


if __name__ == "__main__":
    tyro.cli(main)
