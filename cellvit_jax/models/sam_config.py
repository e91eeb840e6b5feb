"""What a whole SAM is made of, as plain values that are stored beside its weights."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from cellvit_jax.errors import InputError
from cellvit_jax.models.config import ENCODER_SUFFIX, EncoderConfig, quarters

# what tells a SAM-Med2D from the SAM it was made of: images of 256 pixels, adapters in its blocks
MED2D: dict[str, Any] = {"position_grid": 16, "adapters": True}


@dataclasses.dataclass(frozen=True)
class SamConfig:
    """The image encoder of one SAM; prompt encoder and mask decoder are the same in all of them.

    Blocks attend inside windows of `window_size` tokens, except the `global_layers`, counted from
    1; `position_grid` is the side of the token grid, and with it of the one size of image that
    the network takes. With `adapters`, every block of the encoder has SAM-Med2D's. `architecture`
    is "sam" or "sam_med2d", followed by the published size ("_b", "_l", "_h") if it has one.
    """

    architecture: str
    embed_dim: int
    depth: int
    num_heads: int
    global_layers: tuple[int, ...]
    position_grid: int = 64
    patch_size: int = 16
    window_size: int = 14
    mlp_ratio: float = 4.0
    adapters: bool = False

    ARCHITECTURES: ClassVar = tuple(
        kind + size for kind in ("sam", "sam_med2d") for size in ("", "_b", "_l", "_h")
    )

    def __post_init__(self) -> None:
        if self.architecture not in self.ARCHITECTURES:
            known = ", ".join(self.ARCHITECTURES)
            raise InputError(f"there is no SAM called {self.architecture!r} (known: {known})")
        if self.embed_dim % self.num_heads:
            raise InputError(
                f"embed_dim {self.embed_dim} is not divisible by {self.num_heads} heads"
            )
        if self.adapters and self.position_grid % 2:
            raise InputError(
                f"adapters halve the grid and double it again: its side must be even, "
                f"not {self.position_grid}"
            )

    @property
    def image_size(self) -> int:
        """The side in pixels of the square images that the network takes."""
        return self.position_grid * self.patch_size

    @property
    def stretches(self) -> bool:
        """Whether images are stretched to the square, as for SAM-Med2D, rather than padded."""
        return self.architecture.startswith("sam_med2d")

    @property
    def image_encoder(self) -> EncoderConfig:
        """The image encoder as a network of its own."""
        fields = dataclasses.asdict(self)
        fields |= {"encoder": "sam", "architecture": self.architecture + ENCODER_SUFFIX}
        return EncoderConfig(**fields)

    @classmethod
    def sam_b(cls, **fields: Any) -> SamConfig:
        """SAM ViT-B (Kirillov et al. 2023), for images of 1024 pixels."""
        return cls._sam("sam_b", 768, 12, 12, fields)

    @classmethod
    def sam_l(cls, **fields: Any) -> SamConfig:
        """SAM ViT-L, for images of 1024 pixels."""
        return cls._sam("sam_l", 1024, 24, 16, fields)

    @classmethod
    def sam_h(cls, **fields: Any) -> SamConfig:
        """SAM ViT-H, for images of 1024 pixels."""
        return cls._sam("sam_h", 1280, 32, 16, fields)

    @classmethod
    def _sam(
        cls, architecture: str, embed_dim: int, depth: int, num_heads: int, fields: dict[str, Any]
    ) -> SamConfig:
        preset: dict[str, Any] = {
            "architecture": architecture,
            "embed_dim": embed_dim,
            "depth": depth,
            "num_heads": num_heads,
            "global_layers": quarters(depth),
        }
        return cls(**(preset | fields))

    @classmethod
    def sam_med2d_b(cls, **fields: Any) -> SamConfig:
        """SAM-Med2D (Cheng et al. 2023) over ViT-B, for images of 256 pixels, with adapters."""
        return cls.sam_b(**({"architecture": "sam_med2d_b"} | MED2D | fields))

    @classmethod
    def sam_med2d_l(cls, **fields: Any) -> SamConfig:
        """SAM-Med2D over ViT-L, for images of 256 pixels, with adapters."""
        return cls.sam_l(**({"architecture": "sam_med2d_l"} | MED2D | fields))

    @classmethod
    def sam_med2d_h(cls, **fields: Any) -> SamConfig:
        """SAM-Med2D over ViT-H, for images of 256 pixels, with adapters."""
        return cls.sam_h(**({"architecture": "sam_med2d_h"} | MED2D | fields))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SamConfig:
        """The inverse of `to_dict`. Unknown fields raise `InputError`."""
        unknown = values.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise InputError(f"unknown fields in a model's config: {', '.join(sorted(unknown))}")
        return cls(**(values | {"global_layers": tuple(values["global_layers"])}))
