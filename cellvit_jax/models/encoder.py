"""A vision transformer alone: what a foundation model makes of images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.card import ModelCard
from cellvit_jax.errors import InputError
from cellvit_jax.models.config import EncoderConfig
from cellvit_jax.models.dinov2 import DinoV2
from cellvit_jax.models.sam_vit import SamViT
from cellvit_jax.models.vit import ViT, precise

ENCODERS: dict[str, Any] = {"vit": ViT, "sam": SamViT, "dinov2": DinoV2}


class Encoder(nnx.Module):
    """Images in, features out, as the foundation model itself defines its output.

    `dtype` is the compute type of convolutions and linear layers; parameters, norms, softmax and
    all outputs are float32. (In float64, with parameters of that type, so is everything else.)
    """

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        self.card: ModelCard | None = None  # what a checkpoint says of its weights
        self.encoder = ENCODERS[config.encoder](config, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        """Features of normalised float images (B, H, W, 3), of the sizes that a CellViT takes.

        Returns `tokens` (B,h,w,D), one for every patch, and `cls` (B,D), the one of the image, both
        after the final norm. SAM has neither cls token nor final norm: beside its raw `tokens` it
        gives `neck` (B,h,w,256), the image embedding.
        """
        images = jnp.asarray(images, precise(self.dtype))
        check_size(images.shape, self.config)
        return self.encoder.features(images)


def check_size(shape: tuple[int, ...], config: EncoderConfig) -> None:
    """Raises `InputError` for images that the network cannot take."""
    patch = config.patch_size
    if len(shape) != 4 or shape[0] == 0 or shape[-1] != 3:
        raise InputError(f"a network takes images of shape (B, H, W, 3), not {shape}")
    if any(n < patch or (n % patch and not config.any_size) for n in shape[1:3]):
        wanted = f"{patch} or more" if config.any_size else f"multiples of the patch size {patch}"
        raise InputError(
            f"height and width must be {wanted}, not {shape[1]}×{shape[2]}: "
            "pad the image, or let `cellvit_jax.segment` do it"
        )
    if config.adapters and any(n // patch % 2 for n in shape[1:3]):
        raise InputError(
            "SAM-Med2D's adapters take an even number of patches along both sides, not "
            f"{shape[1] // patch}×{shape[2] // patch}: pad the image"
        )
