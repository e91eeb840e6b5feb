"""CellViT: a vision transformer under a decoder with three branches (Hörst et al. 2024)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.card import ModelCard
from cellvit_jax.models.config import ModelConfig
from cellvit_jax.models.decoder import SkipPaths, Trunk, resize
from cellvit_jax.models.encoder import ENCODERS, check_size
from cellvit_jax.models.vit import Encoded, precise

SHARED = "shared"  # the one trunk's name where the branches share it


def branch_channels(config: ModelConfig) -> dict[str, int]:
    """Output channels of the three branches."""
    return {
        "nuclei_binary_map": 4 if config.regression_loss else 2,
        "hv_map": 2,
        "nuclei_type_map": config.num_classes,
    }


class CellViT(nnx.Module):
    """Images in, named maps out.

    `dtype` is the compute type of convolutions and linear layers; parameters, norms, softmax and
    all outputs are float32. (In float64, with parameters of that type, so is everything else.)
    """

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        self.card: ModelCard | None = None  # what a checkpoint says of its weights
        channels = branch_channels(config)
        trunks = (SHARED,) if config.shared_trunk else tuple(channels)
        self.encoder = ENCODERS[config.encoder](config, dtype=dtype, rngs=rngs)
        self.skip_paths = SkipPaths(config, dtype=dtype, rngs=rngs)
        self.trunks = nnx.Dict({name: Trunk(config, dtype=dtype, rngs=rngs) for name in trunks})
        self.heads = nnx.Dict(
            {
                name: nnx.Conv(config.widths.level0, n, (1, 1), rngs=rngs)
                for name, n in channels.items()
            }
        )

    def __call__(
        self, images: jax.Array, *, tokens: bool = False, skips: bool = False
    ) -> dict[str, jax.Array]:
        """Maps of normalised float images (B, H, W, 3), H and W multiples of the patch size.

        Networks with `any_size` take any from the patch size up; those with SAM's encoder none of
        more patches than it has positions for. Another size raises `InputError`.
        Returns logits `nuclei_binary_map` (B,H,W,2), `nuclei_type_map` (B,H,W,classes) and
        `tissue_types` (B,T) (where there is a tissue head), `hv_map` (B,H,W,2) = horizontal,
        vertical distance, `regression_map` (B,H,W,2) where the config has it; with `tokens` the
        last skip as a grid `tokens` (B,h,w,D); with `skips` the raw `skip1..4` (B,prefix+h·w,D).
        """
        images = jnp.asarray(images, precise(self.dtype))
        check_size(images.shape, self.config)
        encoded = self.encoder(images)
        z1, z2, z3, z4 = to_grids(encoded, self.config.patch_size)
        maps = self.decode(encoded.image, z1, z2, z3, z4, size=images.shape[1:3])
        if encoded.tissue is not None:
            maps["tissue_types"] = encoded.tissue
        if tokens:
            maps["tokens"] = z4
        if skips:
            maps |= {f"skip{i}": z for i, z in enumerate(encoded.skips, start=1)}
        return maps

    def decode(
        self,
        image: jax.Array,
        z1: jax.Array,
        z2: jax.Array,
        z3: jax.Array,
        z4: jax.Array,
        *,
        size: tuple[int, ...],
    ) -> dict[str, jax.Array]:
        """Maps of `size` (H,W) from the image that the encoder saw and its skip grids (B,h,w,D)."""
        d0, *deeper = self.skip_paths(image, z1, z2, z3)
        d = resize(d0, size), *deeper
        call = nnx.remat(_called) if self.encoder.remat else _called
        features = {name: call(trunk, d, z4) for name, trunk in self.trunks.items()}
        maps = {
            name: head(features.get(name, features.get(SHARED)))
            for name, head in self.heads.items()
        }
        if self.config.regression_loss:
            binary = maps["nuclei_binary_map"]
            maps |= {"nuclei_binary_map": binary[..., :2], "regression_map": binary[..., 2:]}
        return maps


def _called(module: Any, *inputs: Any) -> Any:
    return module(*inputs)


def to_grids(encoded: Encoded, patch: int) -> tuple[jax.Array, ...]:
    """The skips without their prefix tokens, as grids (B,h,w,D)."""
    h, w = (n // patch for n in encoded.image.shape[1:3])
    return tuple(rearrange(z[:, -h * w :], "b (h w) d -> b h w d", h=h) for z in encoded.skips)
