"""The encoders once more, in PyTorch: written down from what they compute, one image at a time.

Each takes a state dict with the published names and gives what the first block sees, the outputs
of all blocks, and the tissue logits.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def vit(state: State, image: Tensor, heads: int) -> list[Tensor]:
    """What the first block sees, and the outputs (1+h·w,D) of all blocks."""
    x = patches(state, image)
    grid = x.shape[:2]
    x = torch.cat([state["encoder.cls_token"][0], x.flatten(0, 1)])
    x = x + dino_positions(state["encoder.pos_embed"][0], grid)
    outputs = [x]
    for block in blocks(state):
        x = x + attention(block, norm(block, "norm1", x), heads)
        y = F.gelu(linear(block, "mlp.fc1", norm(block, "norm2", x)))
        x = x + linear(block, "mlp.fc2", y)
        outputs.append(x)
    return outputs


def sam(state: State, image: Tensor, heads: int, window: int) -> tuple[list[Tensor], Tensor]:
    outputs = sam_blocks(state, image, heads, window)
    return outputs, linear(state, "classifier_head", sam_neck(state, outputs[-1]).mean((1, 2)))


def sam_blocks(state: State, image: Tensor, heads: int, window: int) -> list[Tensor]:
    """What the first block sees, and the outputs (h,w,D) of all blocks."""
    side = state["encoder.pos_embed"].shape[1]
    x = patches(state, image)
    x = x + state["encoder.pos_embed"][0, : x.shape[0], : x.shape[1]]
    outputs = [x]
    for block in blocks(state):
        y = norm(block, "norm1", x)
        if len(block["attn.rel_pos_h"]) == 2 * side - 1:
            x = x + sam_attention(block, y, heads)
        else:
            x = x + windowed(block, y, heads, window)
        y = norm(block, "norm2", x)
        x = x + linear(block, "mlp.lin2", F.gelu(linear(block, "mlp.lin1", y)))
        if "Adapter.norm.weight" in block:
            x = x + adapter(block, y)
        outputs.append(x)
    return outputs


def adapter(block: State, grid: Tensor) -> Tensor:
    """What SAM-Med2D adds to a block, of the grid (h,w,D) after its second norm."""
    weights = F.relu(F.linear(grid.mean((0, 1)), block["Adapter.channel.0.weight"]))
    weights = torch.sigmoid(F.linear(weights, block["Adapter.channel.2.weight"]))
    y = (weights * grid).permute(2, 0, 1)[None]
    y = F.relu(F.conv2d(y, block["Adapter.spatial.0.weight"], stride=2, padding=1))
    y = F.relu(F.conv_transpose2d(y, block["Adapter.spatial.2.weight"], stride=2, padding=1))
    weight, bias = block["Adapter.norm.weight"], block["Adapter.norm.bias"]
    return F.layer_norm(grid + y[0].permute(1, 2, 0), grid.shape[-1:], weight, bias, 1e-5)


def sam_neck(state: State, x: Tensor) -> Tensor:
    """The image embedding (256,h,w) of the last block's output (h,w,D)."""
    y = F.conv2d(x.permute(2, 0, 1)[None], state["encoder.neck.0.weight"])
    y = channel_norm(state, "encoder.neck.1", y)
    y = F.conv2d(y, state["encoder.neck.2.weight"], padding=1)
    return channel_norm(state, "encoder.neck.3", y)[0]


def dinov2(state: State, image: Tensor, heads: int, patch: int) -> tuple[list[Tensor], Tensor]:
    outputs = dinov2_blocks(state, image, heads, patch)
    return outputs, linear(state, "encoder.head", outputs[-1][0])


def dinov2_blocks(
    state: State, image: Tensor, heads: int, patch: int, gate: Callable[[Tensor], Tensor] = F.gelu
) -> list[Tensor]:
    """What the first block sees, and the outputs (prefix+h·w,D) of all blocks."""
    h, w = (n // patch for n in image.shape[1:])
    x = patches(state, F.adaptive_avg_pool2d(image, (h * patch, w * patch)))
    tokens = [state[key][0] for key in ("encoder.cls_token", "encoder.reg_token") if key in state]
    x = torch.cat([*tokens, x.flatten(0, 1)])
    x = x + positions(state["encoder.pos_embed"][0], sum(map(len, tokens)), (h, w))
    outputs = [x]
    for block in blocks(state):
        y = attention(block, norm(block, "norm1", x), heads)
        x = x + block["ls1.gamma"] * y
        y = linear(block, "mlp.fc1", norm(block, "norm2", x))
        if 2 * block["mlp.fc2.weight"].shape[1] == y.shape[-1]:
            first, second = y.chunk(2, -1)
            y = gate(first) * second
        else:
            y = F.gelu(y)
        x = x + block["ls2.gamma"] * linear(block, "mlp.fc2", y)
        outputs.append(x)
    return outputs


def blocks(state: State) -> list[State]:
    count = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.blocks."))
    prefixes = [f"encoder.blocks.{i}." for i in range(count)]
    return [
        {key.removeprefix(p): value for key, value in state.items() if key.startswith(p)}
        for p in prefixes
    ]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


def channel_norm(state: State, name: str, x: Tensor) -> Tensor:
    return norm(state, name, x.movedim(1, -1)).movedim(-1, 1)


def patches(state: State, image: Tensor) -> Tensor:
    kernel, bias = (state[f"encoder.patch_embed.proj.{name}"] for name in ("weight", "bias"))
    return F.conv2d(image[None], kernel, bias, stride=kernel.shape[-1])[0].permute(1, 2, 0)


def dino_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    square = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = tuple((n + 0.1) / side for n in grid)
    resized = F.interpolate(square, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:1], resized[0].flatten(1).T])


def positions(table: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    side = round((len(table) - prefix) ** 0.5)
    if grid == (side, side):
        return table
    square = table[prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([table[:prefix], resized[0].flatten(1).T])


def attention(block: State, x: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    q, k, v = qkv(block, x, heads)
    y = F.scaled_dot_product_attention(q[None], k[None], v[None], bias)[0]
    return linear(block, "attn.proj", y.transpose(0, 1).flatten(1))


def qkv(block: State, x: Tensor, heads: int) -> Tensor:
    return linear(block, "attn.qkv", x).reshape(len(x), 3, heads, -1).permute(1, 2, 0, 3)


def sam_attention(block: State, grid: Tensor, heads: int) -> Tensor:
    h, w, _ = grid.shape
    x = grid.flatten(0, 1)
    q = qkv(block, x, heads)[0].reshape(heads, h, w, -1)
    rows = torch.einsum("nhwd,hkd->nhwk", q, distances(block["attn.rel_pos_h"], h))
    columns = torch.einsum("nhwd,wkd->nhwk", q, distances(block["attn.rel_pos_w"], w))
    bias = rows[..., :, None] + columns[..., None, :]
    return attention(block, x, heads, bias.reshape(1, heads, h * w, h * w)).reshape(grid.shape)


def distances(table: Tensor, n: int) -> Tensor:
    if len(table) != 2 * n - 1:
        table = F.interpolate(table.T[None], 2 * n - 1, mode="linear")[0].T
    return torch.stack([torch.stack([table[q - k + n - 1] for k in range(n)]) for q in range(n)])


def windowed(block: State, grid: Tensor, heads: int, side: int) -> Tensor:
    h, w, _ = grid.shape
    padded = F.pad(grid, (0, 0, 0, -w % side, 0, -h % side))
    out = torch.zeros_like(padded)
    for r in range(0, h, side):
        for c in range(0, w, side):
            inside = slice(r, r + side), slice(c, c + side)
            out[inside] = sam_attention(block, padded[inside], heads)
    return out[:h, :w]
