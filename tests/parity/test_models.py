"""Converted networks against recorded outputs of the PyTorch originals.

Records hold every `stride`-th pixel of the maps, a part of the tokens and skips, and the moments
(mean, standard deviation) of the whole arrays. The large networks take gigabytes of memory: one
after the other.
"""

from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from flax import nnx

from cellvit_convert.content import Content
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_jax.models import CellViT, folded
from tests.convert.archives import write_archive
from tests.parity.synthetic import state_dict
from tests.shared import DATA, shared

RECORDS = (
    "cellvit-256.he-256",
    "cellvit-256.he-256x320",
    "cellvit-256-shared.he-256",
    "cellvit-256-regression.he-256",
    "cellvit-generic-d192.he-256",
    "cellvit-sam-b.he-256",
)
LARGE = (
    "cellvit-sam-b.he-1024",
    "cellvit-sam-h.he-256",
    "cellvit-uni.he-256",
    "cellvit-virchow.he-256",
    "cellvit-virchow.he-512",
    "cellvit-virchow2.he-256",
)
CONFIGS = {"cellvit-generic-d192": {"model.num_heads": 3, "model.extract_layers": [1, 3, 5, 6]}}


@pytest.fixture(
    scope="module",
    params=[*RECORDS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)],
)
def record(request: pytest.FixtureRequest) -> str:
    """A record's name; skips where neither this checkout nor a folder beside it has the record."""
    find(f"{request.param}.npz", "models")
    return request.param


def find(name: str, folder: str) -> Path:
    """A file of the recorded networks: in this checkout, or in a folder of `../shared`."""
    bundled = DATA / "models" / name
    return bundled if bundled.exists() else shared(f"reference/{folder}/{name}")


@pytest.fixture(scope="module")
def model(record: str, tmp_path_factory: pytest.TempPathFactory) -> CellViT:
    name = record.partition(".")[0]
    return converted(name, tmp_path_factory.mktemp(name) / "x.pth")


def outputs(record: str, model: CellViT) -> dict[str, np.ndarray]:
    """The maps of the record's image."""
    image = record.partition(".")[2]
    pixels = cv2.imread(str(find(f"{image}.png", "inputs")))[..., ::-1].astype(np.float32)
    images = (pixels / 255 - 0.5) / 0.5
    with jax.default_matmul_precision("highest"):
        maps = jax.jit(lambda m, x: m(x, tokens=True, skips=True))(model, images[None])
    return {key: np.asarray(array[0]) for key, array in maps.items()}


def converted(name: str, path: Path) -> CellViT:
    """The network that the conversion of a whole `.pth` file gives."""
    write_archive(path, {"model_state_dict": state_dict(name), "config": CONFIGS.get(name, {})})
    result = translate(Content.read(path))
    path.unlink()
    model = nnx.eval_shape(lambda: CellViT(result.config, rngs=nnx.Rngs(0)))
    nnx.update(model, result.weights)
    return nnx.view(model, deterministic=True, use_running_average=True)


def sample(name: str, array: np.ndarray, stride: int) -> np.ndarray:
    if name == "tissue_types":
        return array
    if name == "tokens":
        return array[::3, ::3, ::4]
    if name.startswith("skip"):
        return array[:: max(1, len(array) // 16), ::8]
    return array[::stride, ::stride]


def test_outputs_equal_the_originals(record: str, model: CellViT) -> None:
    compare(record, outputs(record, model))


@pytest.mark.slow
def test_the_inference_form_equals_the_originals(record: str, model: CellViT) -> None:
    compare(record, outputs(record, folded(model)))


def compare(record: str, outputs: dict[str, np.ndarray]) -> None:
    """Asserts that sampled outputs, and the moments of all of them, are those of the record."""
    expected = dict(np.load(find(f"{record}.npz", "models")))
    stride = int(expected.pop("stride"))
    moments = {k.removesuffix(".moments"): expected.pop(k) for k in [*expected] if "." in k}
    assert outputs.keys() == expected.keys() == moments.keys()
    for name, reference in expected.items():
        found = sample(name, outputs[name], stride)
        assert found.shape == reference.shape, name
        assert np.abs(found - reference).max() <= 1e-5 * np.abs(reference).max(), name
        mean, std = moments[name]
        assert abs(outputs[name].mean(dtype=np.float64) - mean) <= 1e-4 * std, name
        assert abs(outputs[name].std(dtype=np.float64) - std) <= 1e-4 * std, name
