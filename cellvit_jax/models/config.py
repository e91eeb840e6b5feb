"""What a network is made of, as plain values that are stored beside its weights."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from cellvit_jax.errors import InputError

CHOICES: dict[str, tuple[str | None, ...]] = {
    "encoder": ("vit", "sam", "dinov2"),
    "gate": (None, "gelu", "silu"),
}
ENCODER_SUFFIX = "_encoder"  # of the architectures that are encoders alone


@dataclasses.dataclass(frozen=True)
class DecoderWidths:
    """Channels of the decoder, from the image's own resolution (`level0`) down to the tokens'.

    `stem` is the first convolution on the image; `skip1` and `skip2` are the inner widths of the
    paths that bring tokens up to levels 1 and 2.
    """

    stem: int
    level0: int
    level1: int
    level2: int
    bottleneck: int
    skip1: int
    skip2: int

    @classmethod
    def published(cls, embed_dim: int) -> DecoderWidths:
        """The widths of the CellViT paper, which depend on the encoder's width alone."""
        if embed_dim < 512:
            return cls(32, 64, 128, 256, bottleneck=312, skip1=256, skip2=128)
        return cls(32, 64, 128, 256, bottleneck=512, skip1=512, skip2=256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The architecture of a vision transformer. JSON-ready through `to_dict` and `from_dict`.

    `position_grid` is the side of the square grid of stored position embeddings. The three rates
    act in training only: `drop_rate` in MLPs (and a decoder), `attention_drop_rate` on attention
    weights, `drop_path_rate` (stochastic depth) rises linearly from 0 over the blocks.

    `encoder` is "vit" (HIPT and generic), "sam" (Segment Anything) or "dinov2" (UNI, Virchow). Of
    the fields for one of them, SAM's blocks attend inside windows of `window_size` tokens, except
    the `global_layers`, counted from 1; with `adapters` they have SAM-Med2D's. Of DINOv2's, `gate`
    ("gelu" or "silu", None for a plain MLP) is the activation that gates the MLP, `num_registers`
    the number of register tokens, and with `any_size` images that are no multiple of the patch are
    averaged down to one.

    Under a decoder, `skip_layers` are the blocks, counted from 1, whose outputs it sees, and
    `num_tissues` the outputs of a tissue head; an encoder alone has neither.
    """

    architecture: str
    embed_dim: int
    depth: int
    num_heads: int
    skip_layers: tuple[int, ...] = ()
    num_tissues: int = 0
    patch_size: int = 16
    position_grid: int = 14
    mlp_ratio: float = 4.0
    drop_rate: float = 0.0
    attention_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    encoder: str = "vit"
    window_size: int = 14
    global_layers: tuple[int, ...] = ()
    adapters: bool = False
    gate: str | None = None
    num_registers: int = 0
    any_size: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is one of {choices}, not {getattr(self, name)!r}")
        if self.embed_dim % self.num_heads:
            raise InputError(
                f"embed_dim {self.embed_dim} is not divisible by {self.num_heads} heads"
            )

    @property
    def mlp_width(self) -> int:
        """Outputs of an MLP's first layer; a gated one multiplies its two halves."""
        return round(self.embed_dim * self.mlp_ratio)

    @classmethod
    def tiny(cls) -> EncoderConfig:
        """The encoder of `ModelConfig.cellvit_tiny`, 0.9 M parameters."""
        return cls(
            architecture="tiny_encoder", embed_dim=128, depth=4, num_heads=4, position_grid=16
        )

    @classmethod
    def hipt_256(cls) -> EncoderConfig:
        """The ViT-S/16 of HIPT (Chen et al. 2022), trained with DINO on 256-pixel patches."""
        return cls(architecture="hipt_256_encoder", embed_dim=384, depth=12, num_heads=6)

    @classmethod
    def sam_b(cls) -> EncoderConfig:
        """The image encoder of Segment Anything (Kirillov et al. 2023), ViT-B."""
        return cls._sam("sam_b_encoder", 768, 12, 12)

    @classmethod
    def sam_l(cls) -> EncoderConfig:
        """The image encoder of Segment Anything, ViT-L."""
        return cls._sam("sam_l_encoder", 1024, 24, 16)

    @classmethod
    def sam_h(cls) -> EncoderConfig:
        """The image encoder of Segment Anything, ViT-H."""
        return cls._sam("sam_h_encoder", 1280, 32, 16)

    @classmethod
    def _sam(cls, architecture: str, embed_dim: int, depth: int, num_heads: int) -> EncoderConfig:
        return cls(
            architecture=architecture,
            encoder="sam",
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            position_grid=64,
            global_layers=quarters(depth),
        )

    @classmethod
    def uni(cls) -> EncoderConfig:
        """UNI (Chen et al. 2024), a ViT-L/16."""
        return cls(
            architecture="uni_encoder", encoder="dinov2", embed_dim=1024, depth=24, num_heads=16
        )

    @classmethod
    def virchow(cls) -> EncoderConfig:
        """Virchow (Vorontsov et al. 2024), a ViT-H/14 with MLPs gated by SiLU."""
        return cls(
            architecture="virchow_encoder",
            encoder="dinov2",
            embed_dim=1280,
            depth=32,
            num_heads=16,
            patch_size=14,
            position_grid=16,
            mlp_ratio=5.3375,
            gate="silu",
            any_size=True,
        )

    @classmethod
    def virchow2(cls) -> EncoderConfig:
        """Virchow2 (Zimmermann et al. 2024): as Virchow, with four register tokens."""
        return dataclasses.replace(cls.virchow(), architecture="virchow2_encoder", num_registers=4)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Unknown fields raise `InputError`."""
        unknown = values.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise InputError(f"unknown fields in a model's config: {', '.join(sorted(unknown))}")
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)


# of the encoders that have not the published one
DECODERS: dict[str, dict[str, Any]] = {
    "tiny_encoder": {
        "widths": DecoderWidths(16, 16, 32, 64, bottleneck=128, skip1=64, skip2=32),
        "shared_trunk": True,
    }
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(EncoderConfig):
    """The architecture of one CellViT: an encoder and what is above it.

    `num_classes` counts the background (class 0); `num_tissues` of 0 leaves the tissue head out.
    """

    skip_layers: tuple[int, ...]
    widths: DecoderWidths
    num_classes: int
    num_tissues: int
    regression_loss: bool = False
    shared_trunk: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.skip_layers) != 4 or not all(1 <= i <= self.depth for i in self.skip_layers):
            raise InputError(
                f"skip_layers must be four blocks between 1 and {self.depth}, "
                f"not {self.skip_layers}"
            )

    @classmethod
    def over(
        cls, encoder: EncoderConfig, num_classes: int = 6, num_tissues: int = 19, **fields: Any
    ) -> ModelConfig:
        """The CellViT over an encoder: the published decoder, which looks at every quarter of it.

        The encoder computes what it did alone: over Virchow, MLPs stay gated by SiLU. Over `tiny`
        the decoder is that of `cellvit_tiny`.
        """
        sizes = {f.name: getattr(encoder, f.name) for f in dataclasses.fields(EncoderConfig)}
        sizes |= {
            "architecture": above(encoder.architecture),
            "skip_layers": quarters(encoder.depth),
            "num_classes": num_classes,
            "num_tissues": num_tissues,
        }
        values = sizes | DECODERS.get(encoder.architecture, {}) | fields
        values.setdefault("widths", DecoderWidths.published(values["embed_dim"]))
        return cls(**values)

    @classmethod
    def cellvit(
        cls,
        *,
        embed_dim: int,
        depth: int,
        num_heads: int,
        skip_layers: tuple[int, ...],
        num_classes: int = 6,
        num_tissues: int = 19,
        **fields: Any,
    ) -> ModelConfig:
        """The generic CellViT: a plain ViT of any size under the published decoder."""
        fields.setdefault("architecture", "cellvit")
        fields.setdefault("widths", DecoderWidths.published(embed_dim))
        return cls(
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            skip_layers=skip_layers,
            num_classes=num_classes,
            num_tissues=num_tissues,
            **fields,
        )

    @classmethod
    def cellvit_256(cls, num_classes: int = 6, num_tissues: int = 19, **fields: Any) -> ModelConfig:
        """CellViT-256 (Hörst et al. 2024): the ViT-S/16 of HIPT as encoder."""
        return cls.over(EncoderConfig.hipt_256(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_sam_b(
        cls, num_classes: int = 6, num_tissues: int = 19, **fields: Any
    ) -> ModelConfig:
        """CellViT-SAM-B: the image encoder of Segment Anything (Kirillov et al. 2023), ViT-B."""
        return cls.over(EncoderConfig.sam_b(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_sam_l(
        cls, num_classes: int = 6, num_tissues: int = 19, **fields: Any
    ) -> ModelConfig:
        """CellViT-SAM-L: the image encoder of Segment Anything, ViT-L."""
        return cls.over(EncoderConfig.sam_l(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_sam_h(
        cls, num_classes: int = 6, num_tissues: int = 19, **fields: Any
    ) -> ModelConfig:
        """CellViT-SAM-H: the image encoder of Segment Anything, ViT-H."""
        return cls.over(EncoderConfig.sam_h(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_uni(cls, num_classes: int = 6, num_tissues: int = 19, **fields: Any) -> ModelConfig:
        """CellViT-UNI: the ViT-L/16 of UNI (Chen et al. 2024) as encoder."""
        return cls.over(EncoderConfig.uni(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_virchow(
        cls, num_classes: int = 6, num_tissues: int = 19, **fields: Any
    ) -> ModelConfig:
        """CellViT-Virchow: the ViT-H/14 of Virchow (Vorontsov et al. 2024), gated with GELU.

        Virchow itself gates with SiLU: give `gate="silu"` to use its weights as they were trained.
        """
        fields.setdefault("gate", "gelu")
        return cls.over(EncoderConfig.virchow(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_virchow2(
        cls, num_classes: int = 6, num_tissues: int = 19, **fields: Any
    ) -> ModelConfig:
        """CellViT-Virchow2: as Virchow, with four register tokens (Zimmermann et al. 2024)."""
        fields.setdefault("gate", "gelu")
        return cls.over(EncoderConfig.virchow2(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_tiny(cls, num_classes: int = 5, num_tissues: int = 0, **fields: Any) -> ModelConfig:
        """A CellViT of 2.2 M parameters for laptops: small encoder, one narrow shared trunk."""
        return cls.over(EncoderConfig.tiny(), num_classes, num_tissues, **fields)

    @classmethod
    def cellvit_nano(cls, num_classes: int = 5, num_tissues: int = 0, **fields: Any) -> ModelConfig:
        """A CellViT of 0.55 M parameters: cellvit_tiny at half its widths."""
        widths = DecoderWidths(8, 8, 16, 32, bottleneck=64, skip1=32, skip2=16)
        preset = {"architecture": "cellvit_nano", "embed_dim": 64, "num_heads": 2, "widths": widths}
        return cls.cellvit_tiny(num_classes, num_tissues, **(preset | fields))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Unknown fields raise `InputError`."""
        return super().from_dict(values | {"widths": DecoderWidths(**values["widths"])})


def quarters(depth: int) -> tuple[int, ...]:
    """The blocks, counted from 1, that end the quarters of an encoder."""
    return tuple(depth * i // 4 for i in range(1, 5))


def above(encoder: str) -> str:
    """The architecture of a CellViT over an encoder of that architecture."""
    name = encoder.removesuffix(ENCODER_SUFFIX)
    return {"hipt_256": "cellvit_256", "vit": "cellvit"}.get(name, f"cellvit_{name}")
