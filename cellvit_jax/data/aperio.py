"""Outlines of nuclei in Aperio ImageScope's XML, as MoNuSeg and MoNuSAC come with."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import shapely

from cellvit_jax.data.rasterise import valid
from cellvit_jax.errors import InputError

MIN_POINTS = 3
ROOT = "Annotations"


@dataclasses.dataclass(frozen=True, eq=False)
class Outlines:
    """N polygons, corner-based, in pixels of the image, and the layers they were drawn in.

    `layers` are the names that the annotators gave (MoNuSAC: the classes; MoNuSeg: none).
    """

    shapes: np.ndarray
    layers: tuple[str, ...]


def read_outlines(path: Path) -> Outlines:
    """The regions of an XML file; those under three points are left out. Raises InputError."""
    try:
        root = ET.parse(path).getroot()
        if root.tag != ROOT:
            raise ValueError(f"its root is {root.tag}, expected {ROOT}")
        found = [
            (_layer(annotation), points)
            for annotation in root.iter("Annotation")
            for region in annotation.iter("Region")
            if len(points := _points(region)) >= MIN_POINTS
        ]
    except (OSError, ET.ParseError, KeyError, ValueError) as error:
        raise InputError(f"{path} is no XML of Aperio ImageScope ({error})") from error
    shapes = np.array([shapely.Polygon(points) for _, points in found], object)
    return Outlines(valid(shapes), tuple(layer for layer, _ in found))


def holds_outlines(root: Path) -> bool:
    """Whether the first XML file somewhere in a folder is one of ImageScope."""
    first = min(root.rglob("*.xml"), default=None)
    if first is None:
        return False
    try:
        with first.open("rb") as file:
            _, element = next(ET.iterparse(file, ("start",)))
    except (OSError, ET.ParseError):
        return False
    return element.tag == ROOT


def _layer(annotation: ET.Element) -> str:
    attribute = annotation.find("Attributes/Attribute")
    name = "" if attribute is None else attribute.get("Name", "")
    return (name or annotation.get("Name", "")).strip()


def _points(region: ET.Element) -> list[tuple[float, float]]:
    return [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")]
