"""Whole networks in PyTorch, to compare with: CellViT over ViT-S/16 or SAM, from our weights.

What the original does is done here, from the layers of `torch_twin`: skip paths anew for every
branch, BatchNorm on its own, joined channels, fused attention.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_twin import Weights, branch, sam_global, sam_windows, to_torch, vit_block

from cellvit_jax.models import CellViT, ModelConfig
from cellvit_jax.models.sam_vit import linear_weights
from cellvit_jax.models.vit import resize_positions

Network = Callable[[Tensor], dict[str, Tensor]]


def device() -> str:
    """Where the twin runs: on what JAX runs on."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def twin(model: CellViT, side: int, *, channels_last: bool = False) -> Network:
    """The network for images (B,3,S,S) of that side; its outputs are maps (B,C,S,S)."""
    memory = torch.channels_last if channels_last else torch.contiguous_format
    w = weights(model, memory)
    run = network(w, model.config, side, memory)
    trainable(w)
    return run


def trainable(w: Weights) -> list[Tensor]:
    """The weights that gradients are taken of, as `torch.nn` has them.

    Autocast keeps the casts of those alone from one use to the next within a call, and not in
    `torch.inference_mode`.
    """
    fixed = (".mean", ".var", "pos_embed", "counter")
    return [value.requires_grad_() for name, value in w.items() if not name.endswith(fixed)]


def weights(model: CellViT, memory: torch.memory_format) -> Weights:
    """Our weights on the device, images' and kernels' axes in that order of memory."""
    w = {name: value.to(device()) for name, value in to_torch(model).items()}
    w = {name.replace("skip_paths.", "paths."): value for name, value in w.items()}
    for name, value in w.items():
        w[name] = value.contiguous(memory_format=memory) if value.ndim == 4 else value
    return w


def network(w: Weights, config: ModelConfig, side: int, memory: torch.memory_format) -> Network:
    """The network over those weights; where gradients are taken, with the batch's statistics."""
    blocks = [part(w, f"encoder.blocks.{i}.") for i in range(config.depth)]
    encode = {"vit": vit_encoder, "sam": sam_encoder}[config.encoder]
    run = encode(w, blocks, config, side // config.patch_size)
    names = ("nuclei_binary_map", "hv_map", "nuclei_type_map")

    def run_all(images: Tensor) -> dict[str, Tensor]:
        images = images.contiguous(memory_format=memory)
        z = [skip.contiguous(memory_format=memory) for skip in run(images)]
        return {name: head(w, name, branch(w, f"trunks.{name}", images, *z)) for name in names}

    return run_all


def part(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): x for name, x in w.items() if name.startswith(prefix)}


def head(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, w[f"heads.{name}.kernel"], w[f"heads.{name}.bias"])


def patches(w: Weights, images: Tensor, config: ModelConfig) -> Tensor:
    kernel, bias = w["encoder.patch_embed.kernel"], w["encoder.patch_embed.bias"]
    return F.conv2d(images, kernel, bias, stride=config.patch_size)


def vit_encoder(w, blocks, config, grid):
    stored = w["encoder.pos_embed"].detach().cpu().numpy()
    positions = np.array(resize_positions(stored, (grid, grid)))
    positions = torch.from_numpy(positions).to(w["encoder.pos_embed"].device)

    def run(images: Tensor) -> list[Tensor]:
        x = patches(w, images, config).flatten(2).transpose(1, 2)
        x = torch.cat([w["encoder.cls_token"].expand(len(x), -1, -1), x], 1) + positions
        outputs = []
        for block in blocks:
            x = vit_block(block, x)
            outputs.append(x)
        skips = (outputs[i - 1][:, 1:].transpose(1, 2) for i in config.skip_layers)
        return [skip.unflatten(2, (grid, grid)) for skip in skips]

    return run


def sam_encoder(w, blocks, config, grid):
    positions = w["encoder.pos_embed"][:, :grid, :grid]
    for layer in config.global_layers:
        for name in ("attn.rel_pos_h", "attn.rel_pos_w"):
            blocks[layer - 1][name] = resized(blocks[layer - 1][name], 2 * grid - 1)

    def run(images: Tensor) -> list[Tensor]:
        x = patches(w, images, config).permute(0, 2, 3, 1) + positions
        outputs = []
        for layer, block in enumerate(blocks, start=1):
            x = (sam_global if layer in config.global_layers else sam_windows)(block, x)
            outputs.append(x)
        return [outputs[i - 1].permute(0, 3, 1, 2) for i in config.skip_layers]

    return run


def resized(table: Tensor, length: int) -> Tensor:
    if len(table) == length:
        return table
    return torch.from_numpy(linear_weights(len(table), length)).to(table.device) @ table
