"""What a checkpoint says of itself beside its architecture."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

Color = tuple[int, int, int]
Stain = Literal["", "macenko"]

CITATION = "Hörst et al., CellViT, Medical Image Analysis 94, 2024, doi:10.1016/j.media.2024.103143"
TILES = {"cellvit_virchow": 512, "cellvit_virchow2": 512}  # what they were trained on

# the class colours of CellViT, by class id
COLORS: tuple[Color, ...] = (
    (92, 20, 186),
    (255, 0, 0),
    (34, 221, 77),
    (35, 92, 236),
    (254, 255, 0),
    (255, 159, 68),
    (80, 56, 112),
    (87, 112, 56),
    (110, 0, 0),
    (255, 196, 196),
    (214, 255, 196),
)


def cited(*citations: str) -> str:
    """Those citations that say something, each once."""
    return "; ".join(filter(None, dict.fromkeys(citations)))


@dataclasses.dataclass(frozen=True)
class CellClass:
    """A type of cell: its name and the colour (RGB, 0..255) it is drawn in."""

    name: str
    color: Color


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Facts about trained weights that inference, exports and people need.

    `classes` and `tissues` are names in the order of the ids, `classes[0]` being the background;
    `mean` and `std` normalise RGB/255; `mpp` is the resolution in µm per pixel that the network
    was trained at, `tile` the side in pixels of the tiles that it is best run on. With `stain`
    "macenko" it was trained on images in the colours of one staining, and is shown such: see
    `stains`.
    """

    classes: tuple[CellClass, ...]
    tissues: tuple[str, ...] = ()
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    mpp: float = 0.25
    tile: int = 1024
    stain: Stain = ""
    provenance: str = ""
    license: str = ""
    citation: str = ""
    notice: str = "For research only, not for diagnosis."

    @property
    def cell_classes(self) -> dict[int, tuple[str, Color]]:
        """Class id → (name, colour), without the background."""
        return {i: (c.name, c.color) for i, c in enumerate(self.classes) if i > 0}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelCard:
        """The inverse of `to_dict`."""
        classes = tuple(CellClass(c["name"], tuple(c["color"])) for c in values["classes"])
        rest: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        rest["classes"] = classes
        return cls(**rest)


def cell_classes(*names: str) -> tuple[CellClass, ...]:
    """Background and the named classes, in CellViT's colours."""
    return tuple(
        CellClass(name, COLORS[i % len(COLORS)]) for i, name in enumerate(("Background", *names))
    )


def numbered(what: str, first: int, stop: int) -> tuple[str, ...]:
    """Names for what nobody has named: "class 1", "class 2", …"""
    return tuple(f"{what} {i}" for i in range(first, stop))


def tile(architecture: str) -> int:
    """The side in pixels of the tiles that networks of an architecture are best run on."""
    return TILES.get(architecture, ModelCard.tile)


PANNUKE_CLASSES = cell_classes("Neoplastic", "Inflammatory", "Connective", "Dead", "Epithelial")
PANNUKE_TISSUES = (
    "Adrenal_gland",
    "Bile-duct",
    "Bladder",
    "Breast",
    "Cervix",
    "Colon",
    "Esophagus",
    "HeadNeck",
    "Kidney",
    "Liver",
    "Lung",
    "Ovarian",
    "Pancreatic",
    "Prostate",
    "Skin",
    "Stomach",
    "Testis",
    "Thyroid",
    "Uterus",
)
