"""Whole SAMs against recorded outputs of the originals, on synthetic weights.

Records hold a part of the image embedding and the masks and scores of three prompts, each asked
for one mask and for several. Weights are made, and put into the network, one tensor at a time: the
largest network has 7.9 GB of them.
"""

from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cellvit_convert import sam_whole
from cellvit_convert.content import Content
from cellvit_convert.rules import find as rule_for
from cellvit_jax import checkpoint
from cellvit_jax.models import Sam, SamConfig
from tests.parity.synthetic import draw, manifest
from tests.shared import DATA, shared

RECORDS = ("sam-med2d-vit-b.he-256", "sam-vit-b.he-1024", "sam-med2d-vit-h.he-256")
PROMPTS = ("points", "box", "points_box_mask")
RULES = sam_whole.rules(SamConfig.sam_b())
Arrays = dict[str, np.ndarray]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in RECORDS]
)
def record(request: pytest.FixtureRequest) -> str:
    """A record's name; skips where neither this checkout nor a folder beside it has the record."""
    find(f"{request.param}.npz", "sam")
    find(f"{request.param.rpartition('.')[2]}.png", "inputs")
    return request.param


def find(name: str, folder: str) -> Path:
    bundled = DATA / "models" / name
    return bundled if bundled.exists() else shared(f"reference/{folder}/{name}")


def synthetic(name: str) -> Sam:
    """The network of a manifest, filled tensor by tensor."""
    shapes = manifest(name)
    zeros = {key: np.broadcast_to(np.float32(0), shape) for key, (shape, _) in shapes.items()}
    model = checkpoint.network(sam_whole.config(Content(zeros)))
    arrays = dict(ours(key, draw(key, shape, dtype)) for key, (shape, dtype) in shapes.items())
    state = nnx.state(model)
    names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)]
    assert sorted(arrays) == sorted(names)
    nnx.update(model, nnx.map_state(lambda p, v: v.replace(arrays[".".join(map(str, p))]), state))
    return model


def ours(key: str, tensor: np.ndarray) -> tuple[str, jax.Array]:
    """A tensor's name and layout here."""
    name, axes = rule_for(key, RULES)
    return name, jnp.asarray(tensor if axes is None else tensor.transpose(axes))


@pytest.fixture(scope="module")
def expected(record: str) -> Arrays:
    return dict(np.load(find(f"{record}.npz", "sam")))


@pytest.fixture(scope="module")
def found(record: str, expected: Arrays) -> Arrays:
    """Everything that a record has, whole."""
    name, _, image = record.partition(".")
    model = synthetic(name)
    pixels = cv2.imread(str(find(f"{image}.png", "inputs")))[..., ::-1].astype(np.float32)
    pixels = (pixels - np.float32(sam_whole.MEAN)) / np.float32(sam_whole.STD)
    with jax.default_matmul_precision("highest"):
        embedded = jax.jit(Sam.embed)(model, pixels[None])
        outputs = {"image_embedding": np.asarray(embedded[0])}
        decode = jax.jit(Sam.decode)
        for prompt in PROMPTS:
            masks = decode(model, embedded, *prompt_of(prompt, expected))
            for mode, part in (("single", slice(0, 1)), ("multi", slice(1, 4))):
                outputs[f"{prompt}.{mode}.low_res_logits"] = np.asarray(masks.logits[0][..., part])
                outputs[f"{prompt}.{mode}.iou"] = np.asarray(masks.iou[0][part])
    return outputs


def prompt_of(name: str, record: Arrays) -> tuple[np.ndarray, ...]:
    """Points, labels and perhaps a mask: a box is two points, no box is one that is none."""
    points, labels = record["point_coords_xy"], record["point_labels"]
    corners = record["box_xyxy"].reshape(2, 2)
    if name == "points":
        return np.append(points, [[0, 0]], 0)[None], np.append(labels, -1)[None]
    if name == "box":
        return corners[None], np.array([[2, 3]])
    every = np.append(points, corners, 0)[None], np.append(labels, [2, 3])[None]
    return *every, record["mask_input"][None]


def test_outputs_equal_the_originals(found: Arrays, expected: Arrays) -> None:
    assert {f"{p}.{m}.iou" for p in PROMPTS for m in ("single", "multi")} <= expected.keys()
    for name, full in found.items():
        reference = expected[name]
        array = full[::3, ::3, ::4] if name == "image_embedding" else full
        if name.endswith("logits") and len(full) == 256:
            array = full[::3, ::3]
        assert array.shape == reference.shape, name
        error = np.abs(array - reference).max() / np.abs(reference).max()
        print(f"{name}: {error:.2g}")
        assert error <= 1e-5, name
    mean, std = expected["image_embedding.moments"]
    embedding = found["image_embedding"].astype(np.float64)
    assert abs(embedding.mean() - mean) <= 1e-4 * std
    assert abs(embedding.std() - std) <= 1e-4 * std
