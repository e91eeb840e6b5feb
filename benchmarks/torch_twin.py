"""Time of a network's parts over that of the same layers in PyTorch, on the CPU.

    [taskset -c 0] python benchmarks/torch_twin.py [--rounds 9]

Encoder blocks of CellViT-256 and of CellViT-SAM-B (windowed and global) on the tokens of a 256²
tile, and the decoder of CellViT-256: one trunk, and all of it as the original code runs it, which
goes through the skip paths anew for every branch. The twins are written here from what
the layers compute, in PyTorch's own layout and with its fused attention; float32, one image, as
many threads as cores that the process may use. Both sides have the same random weights, which
their outputs must show, and take turns. On one core the processor's time is taken, which other
programs on the machine hardly change; on several it is the time that passes.
"""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from flax import nnx
from timing import in_turns, ratio, spread
from torch import Tensor

from cellvit_jax.models import ModelConfig
from cellvit_jax.models.decoder import SkipPaths, Trunk
from cellvit_jax.models.sam_vit import Block as SamBlock
from cellvit_jax.models.vit import Block

Weights = dict[str, Tensor]
CORES = len(os.sched_getaffinity(0))
CLOCK = time.process_time if CORES == 1 else time.perf_counter
SIDE, WINDOW = 16, 14  # tokens of a tile, and of SAM's windows


class Case(NamedTuple):
    """A part, its inputs, and its twin: a function of the weights and the same inputs."""

    name: str
    part: nnx.Module
    inputs: tuple[np.ndarray, ...]
    twin: Callable[..., Tensor]


class Decoder(nnx.Module):
    """The skip paths and some trunks, whose features are joined."""

    def __init__(self, config: ModelConfig, trunks: int, **kwargs: Any):
        self.paths = SkipPaths(config, **kwargs)
        self.trunks = nnx.List([Trunk(config, **kwargs) for _ in range(trunks)])

    def __call__(self, image: jax.Array, *z: jax.Array) -> jax.Array:
        d = self.paths(image, *z[:3])
        return jnp.concatenate([trunk(d, z[3]) for trunk in self.trunks], -1)


def main(rounds: int = 9) -> None:
    """Print the table, as Markdown."""
    torch.set_num_threads(CORES)
    print(f"{CORES} core(s), {CLOCK.__name__}\n")
    print("| part | ours, ms | PyTorch, ms | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for case in cases():
        ours, theirs = both(case)
        expected = theirs()
        np.testing.assert_allclose(ours(), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        first, second = in_turns({"ours": ours, "theirs": theirs}, rounds, CLOCK).values()
        row = spread(first), spread(second), ratio(first, second)
        print(f"| {case.name} | {' | '.join(row)} |", flush=True)


def cases() -> list[Case]:
    small, sam = ModelConfig.cellvit_256(), ModelConfig.cellvit_sam_b(position_grid=SIDE)
    kwargs: dict[str, Any] = {"dtype": np.float32, "rngs": nnx.Rngs(0)}
    tokens, grid = noise(1, 1 + SIDE**2, small.embed_dim), noise(1, SIDE, SIDE, sam.embed_dim)
    features = [noise(1, SIDE, SIDE, small.embed_dim) for _ in range(4)]
    image = noise(1, 16 * SIDE, 16 * SIDE, 3)
    return [
        Case("block of CellViT-256", Block(small, 0.0, **kwargs), (tokens,), vit_block),
        Case("windowed block of SAM-B", SamBlock(sam, WINDOW, 0.0, **kwargs), (grid,), sam_windows),
        Case("global block of SAM-B", SamBlock(sam, None, 0.0, **kwargs), (grid,), sam_global),
        Case("one trunk of CellViT-256", Decoder(small, 1, **kwargs), (image, *features), decode),
        Case("its whole decoder", Decoder(small, 3, **kwargs), (image, *features), decode),
    ]


def both(case: Case) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """The part and its twin as calls that end when the output is there, in our layout."""
    part = nnx.view(
        case.part, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    run = jax.jit(lambda part, *inputs: part(*inputs))
    weights = to_torch(case.part)
    convolves = case.twin is decode
    inputs = [torch.from_numpy(x.copy()) for x in case.inputs]
    inputs = [x.permute(0, 3, 1, 2).contiguous() if convolves else x for x in inputs]

    @torch.inference_mode()
    def theirs() -> np.ndarray:
        out = case.twin(weights, *inputs)
        return (out.permute(0, 2, 3, 1) if convolves else out).numpy()

    return lambda: np.asarray(run(part, *case.inputs)), theirs


def to_torch(part: nnx.Module) -> Weights:
    """Our weights by dotted name, in the layout that PyTorch's functions take."""
    weights = {}
    for path, variable in nnx.to_flat_state(nnx.state(part, (nnx.Param, nnx.BatchStat))):
        value = torch.from_numpy(np.array(variable[...]))
        if path[-1] == "kernel" and value.ndim == 2:
            value = value.T
        elif path[-1] == "kernel":
            # (2, 2, in, out) of a transposed convolution, (h, w, in, out) of another
            up = str(path[-2]).startswith("up")
            value = value.permute(2, 3, 0, 1) if up else value.permute(3, 2, 0, 1)
        weights[".".join(map(str, path))] = value.contiguous()
    return weights


# ----- the twins -------------------------------------------------------------------------------


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.kernel"], w[f"{name}.bias"])


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.scale"], w[f"{name}.bias"], 1e-6)


def mlp(w: Weights, x: Tensor) -> Tensor:
    return linear(w, "mlp.fc2", F.gelu(linear(w, "mlp.fc1", x)))


def heads(w: Weights, x: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, N, d) of tokens (B, N, D)."""
    b, n, _ = x.shape
    return linear(w, "attn.qkv", x).reshape(b, n, 3, count, -1).permute(2, 0, 3, 1, 4).unbind(0)


def vit_block(w: Weights, x: Tensor) -> Tensor:
    q, k, v = heads(w, norm(w, "norm1", x), 6)
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + linear(w, "attn.proj", y)
    return x + mlp(w, norm(w, "norm2", x))


def sam_attention(w: Weights, grid: Tensor) -> Tensor:
    h, width = grid.shape[1:3]
    q, k, v = heads(w, grid.flatten(1, 2), grid.shape[-1] // w["attn.rel_pos_h"].shape[-1])
    square = q.unflatten(2, (h, width))
    away = torch.arange(h)[:, None] - torch.arange(h) + h - 1
    rows = torch.einsum("bnhwd,hkd->bnhwk", square, w["attn.rel_pos_h"][away])
    columns = torch.einsum("bnhwd,wkd->bnhwk", square, w["attn.rel_pos_w"][away])
    bias = (rows[..., :, None] + columns[..., None, :]).flatten(-2).flatten(2, 3)
    y = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2).flatten(2)
    return linear(w, "attn.proj", y).reshape(grid.shape)


def sam_global(w: Weights, x: Tensor) -> Tensor:
    x = x + sam_attention(w, norm(w, "norm1", x))
    return x + mlp(w, norm(w, "norm2", x))


def sam_windows(w: Weights, x: Tensor) -> Tensor:
    b, h, width, d = x.shape
    n = -(-h // WINDOW)
    y = F.pad(norm(w, "norm1", x), (0, 0, 0, n * WINDOW - width, 0, n * WINDOW - h))
    y = y.reshape(b, n, WINDOW, n, WINDOW, d).transpose(2, 3).reshape(-1, WINDOW, WINDOW, d)
    y = sam_attention(w, y).reshape(b, n, n, WINDOW, WINDOW, d).transpose(2, 3)
    x = x + y.reshape(b, n * WINDOW, n * WINDOW, d)[:, :h, :width]
    return x + mlp(w, norm(w, "norm2", x))


def conv(w: Weights, name: str, x: Tensor) -> Tensor:
    x = F.conv2d(x, w[f"{name}.conv.kernel"], w[f"{name}.conv.bias"], padding=1)
    mean, var, scale, bias = (w[f"{name}.norm.{k}"] for k in ("mean", "var", "scale", "bias"))
    training = torch.is_grad_enabled()
    return F.relu(F.batch_norm(x, mean, var, scale, bias, training))


def convs(w: Weights, name: str, count: int, x: Tensor) -> Tensor:
    for i in range(count):
        x = conv(w, f"{name}.layers.{i}", x)
    return x


def up(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, w[f"{name}.kernel"], w[f"{name}.bias"], stride=2)


def path(w: Weights, name: str, count: int, x: Tensor) -> Tensor:
    for i in range(count):
        x = conv(w, f"{name}.layers.{i}.block", up(w, f"{name}.layers.{i}.up", x))
    return x


def decode(w: Weights, image: Tensor, *z: Tensor) -> Tensor:
    trunks = len({key.split(".")[1] for key in w if key.startswith("trunks.")})
    return torch.cat([branch(w, f"trunks.{i}", image, *z) for i in range(trunks)], 1)


def branch(w: Weights, trunk: str, image: Tensor, *z: Tensor) -> Tensor:
    d0 = convs(w, "paths.level0", 2, image)
    d = [path(w, f"paths.level{i}", 4 - i, z[i - 1]) for i in (1, 2, 3)]
    x = convs(w, f"{trunk}.level3", 3, torch.cat([d[2], up(w, f"{trunk}.up4", z[3])], 1))
    x = convs(w, f"{trunk}.level2", 2, torch.cat([d[1], up(w, f"{trunk}.up3", x)], 1))
    x = convs(w, f"{trunk}.level1", 2, torch.cat([d[0], up(w, f"{trunk}.up2", x)], 1))
    return convs(w, f"{trunk}.level0", 2, torch.cat([d0, up(w, f"{trunk}.up1", x)], 1))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


if __name__ == "__main__":
    tyro.cli(main)
