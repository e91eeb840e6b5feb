"""SAM and SAM-Med2D whole: an image once, then a mask for every prompt (Kirillov et al. 2023)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from cellvit_jax.card import ModelCard
from cellvit_jax.errors import InputError
from cellvit_jax.models.mask_decoder import MaskDecoder, Masks
from cellvit_jax.models.prompt_encoder import PromptEncoder
from cellvit_jax.models.sam_config import SamConfig
from cellvit_jax.models.sam_vit import SamViT


class Sam(nnx.Module):
    """Images and prompts in, masks out.

    `dtype` is the compute type of convolutions and linear layers; parameters, norms, softmax,
    positions and all outputs are float32.
    """

    def __init__(self, config: SamConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.card: ModelCard | None = None  # what a checkpoint says of its weights
        self.image_encoder = SamViT(config.image_encoder, dtype=dtype, rngs=rngs)
        self.prompt_encoder = PromptEncoder(dtype=dtype, rngs=rngs)
        self.mask_decoder = MaskDecoder(dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: jax.Array,
        points: jax.Array,
        labels: jax.Array,
        masks: jax.Array | None = None,
    ) -> Masks:
        """One prompt for each of the images; see `embed` and `decode`."""
        return self.decode(self.embed(images), points, labels, masks)

    def embed(self, images: jax.Array) -> jax.Array:
        """Embeddings (B,h,w,256) of normalised float images (B,S,S,3), S the config's image size.

        Another size raises `InputError`: the positions belong to this one.
        """
        images = jnp.asarray(images, jnp.float32)
        side = self.config.image_size
        if images.ndim != 4 or images.shape[0] == 0 or images.shape[1:] != (side, side, 3):
            raise InputError(
                f"this SAM takes images of shape (B, {side}, {side}, 3), not {images.shape}: "
                "resize them, or let `cellvit_jax.inference.PromptPredictor` do it"
            )
        return self.image_encoder.embed(images)

    def decode(
        self,
        embedded: jax.Array,
        points: jax.Array,
        labels: jax.Array,
        masks: jax.Array | None = None,
    ) -> Masks:
        """Masks of P prompts, on as many embedded images (P,h,w,256) or all on one (1,h,w,256).

        A prompt is N `points` (P,N,2), x then y in the pixels of the network's image, with `labels`
        (P,N): 1 foreground, 0 background, -1 none. A box is two of them, its corners, labelled 2
        and 3; where there is no box, the original network expects one more, labelled -1. `masks`
        (P,4h,4w) are logits of a rough mask, such as an earlier answer.
        """
        points, labels = jnp.asarray(points, jnp.float32), jnp.asarray(labels, jnp.int32)
        prompts = self.prompt_encoder.points((points + 0.5) / self.config.image_size, labels)
        dense = self.prompt_encoder.masks(masks)
        image = jnp.broadcast_to(embedded + dense, (len(points), *embedded.shape[1:]))
        grid = self.prompt_encoder.grid(*embedded.shape[1:3])
        return self.mask_decoder(image, grid, prompts)
