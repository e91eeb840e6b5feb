import json

import numpy as np
import pyarrow as pa
import pytest

from cellvit_jax import exports
from cellvit_jax.cells.table import Cells
from tests.exports.samples import CLASSES, VARIANTS, sample
from tests.shared import DATA

RECORDED = json.loads((DATA / "exports" / "nucls-256-3.cells.json").read_text())


def written(cells, folder, name="cells.json", **options):
    exports.write(cells, folder / name, **options)
    return json.loads((folder / name).read_text(encoding="utf-8"))


def recorded_cells():
    """The recorded dictionaries as columns."""
    bbox = np.array([cell["bbox"] for cell in RECORDED], np.int32).reshape(-1, 4)
    centroid = np.array([cell["centroid"] for cell in RECORDED])
    columns = dict(zip(("bbox_r0", "bbox_c0", "bbox_r1", "bbox_c1"), bbox.T, strict=True))
    columns |= {"centroid_x": centroid[:, 0], "centroid_y": centroid[:, 1]}
    columns |= {key: [cell[key] for cell in RECORDED] for key in ("id", "type", "type_prob")}
    contours = [cell["contour"] for cell in RECORDED]
    columns["contour"] = pa.array(contours, pa.list_(pa.list_(pa.float32(), 2)))
    return Cells(pa.table(columns))


def test_cells_look_as_the_recorded_ones_do(tmp_path):
    for ours, recorded in zip(written(recorded_cells(), tmp_path)["cells"], RECORDED, strict=True):
        assert ours["type_prob"] == pytest.approx(recorded["type_prob"], abs=1e-6)
        for key in ("bbox", "centroid", "contour", "type"):
            assert json.dumps(ours[key]) == json.dumps(recorded[key])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_field_is_there(variant, tmp_path):
    document = written(VARIANTS[variant], tmp_path)
    assert document.keys() == {"wsi_metadata", "type_map", "cells"}
    assert len(document["cells"]) == len(VARIANTS[variant])
    for cell in document["cells"]:
        assert str(cell["type"]) in document["type_map"]
        assert cell.keys() == {
            *("bbox", "centroid", "contour", "type_prob", "type"),
            *("patch_coordinates", "cell_status", "offset_global", "edge_position"),
        }


def test_the_short_form_holds_box_centroid_and_type(tmp_path):
    document = written(sample(), tmp_path, "slide_cell_detection.json")
    assert document["cells"][1] == {
        "bbox": [[0, 16], [11, 27]],
        "centroid": [20.56789, 4.56789],
        "type": 2,
    }


def test_names_and_metadata(tmp_path):
    document = written(sample(), tmp_path, metadata={"vendor": "aperio"})
    assert document["type_map"] == {"1": CLASSES[1][0], "2": CLASSES[2][0]}
    assert document["wsi_metadata"] == {"base_mpp": 0.25, "vendor": "aperio"}
