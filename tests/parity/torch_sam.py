"""SAM's prompt encoder and mask decoder once more, in PyTorch, for one prompt at a time."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity.torch_encoders import State, channel_norm, linear

HEADS = 8


def inside(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def positions(prompt: State, points: Tensor) -> Tensor:
    """Of points (…,2) in 0..1."""
    phases = (2 * points - 1) @ prompt["pe_layer.positional_encoding_gaussian_matrix"]
    return torch.cat([torch.sin(2 * math.pi * phases), torch.cos(2 * math.pi * phases)], -1)


def sparse(prompt: State, points: Tensor, labels: list[int], size: int) -> Tensor:
    """Embeddings (N,D); label -1 is no point, 2 and 3 are a box's corners."""
    rows = []
    for point, label in zip(points, labels, strict=True):
        if label < 0:
            rows.append(prompt["not_a_point_embed.weight"][0])
        else:
            place = positions(prompt, (point + 0.5) / size)
            rows.append(place + prompt[f"point_embeddings.{label}.weight"][0])
    return torch.stack(rows)


def dense(prompt: State, mask: Tensor) -> Tensor:
    """Embeddings (D,h,w) of mask logits (4h,4w)."""
    x = mask[None, None]
    for i in (0, 3):
        name = f"mask_downscaling.{i}"
        x = F.conv2d(x, prompt[f"{name}.weight"], prompt[f"{name}.bias"], stride=2)
        x = F.gelu(channel_norm(prompt, f"mask_downscaling.{i + 1}", x))
    name = "mask_downscaling.6"
    return F.conv2d(x, prompt[f"{name}.weight"], prompt[f"{name}.bias"])[0]


def grid(prompt: State, n: int) -> Tensor:
    """Positions (n·n,D) of the image's tokens."""
    ticks = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    rows, columns = torch.meshgrid(ticks, ticks, indexing="ij")
    return positions(prompt, torch.stack([columns, rows], -1)).flatten(0, 1)


def attention(state: State, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (
        linear(state, name, x).unflatten(-1, (HEADS, -1)).transpose(0, 1)[None]
        for name, x in (("q_proj", q), ("k_proj", k), ("v_proj", v))
    )
    y = F.scaled_dot_product_attention(q, k, v)[0]
    return linear(state, "out_proj", y.transpose(0, 1).flatten(1))


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def block(
    state: State, first: bool, tokens: Tensor, image: Tensor, places: Tensor, grid: Tensor
) -> tuple[Tensor, Tensor]:
    """A two-way block on tokens (T,D) and image (h·w,D)."""
    own, cross, back = (
        inside(state, f"{name}.")
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
    )
    if first:
        tokens = norm(state, "norm1", attention(own, tokens, tokens, tokens))
    else:
        q = tokens + places
        tokens = norm(state, "norm1", tokens + attention(own, q, q, tokens))
    tokens = norm(state, "norm2", tokens + attention(cross, tokens + places, image + grid, image))
    hidden = F.relu(linear(state, "mlp.lin1", tokens))
    tokens = norm(state, "norm3", tokens + linear(state, "mlp.lin2", hidden))
    image = image + attention(back, image + grid, tokens + places, tokens)
    return tokens, norm(state, "norm4", image)


def mlp(state: State, x: Tensor) -> Tensor:
    for i in range(2):
        x = F.relu(linear(state, f"layers.{i}", x))
    return linear(state, "layers.2", x)


def masks(decoder: State, tokens: Tensor, image: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Logits (4,4n,4n) and IoU (4,) of what the transformer made of tokens (T,D), image (n·n,D)."""
    x = image.T.unflatten(1, (n, n))[None]
    names = [f"output_upscaling.{i}" for i in (0, 3)]
    first, last = ((decoder[f"{name}.weight"], decoder[f"{name}.bias"]) for name in names)
    x = channel_norm(decoder, "output_upscaling.1", F.conv_transpose2d(x, *first, stride=2))
    x = F.gelu(F.conv_transpose2d(F.gelu(x), *last, stride=2))[0]
    kernels = [
        mlp(inside(decoder, f"output_hypernetworks_mlps.{i}."), tokens[1 + i]) for i in range(4)
    ]
    logits = torch.einsum("md,dhw->mhw", torch.stack(kernels), x)
    return logits, mlp(inside(decoder, "iou_prediction_head."), tokens[0])
