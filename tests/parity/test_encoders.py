"""Narrow variants of the published encoders, block by block, against PyTorch."""

import re
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from cellvit_convert import sam, uni
from cellvit_convert.rules import Rule, fill, rename, shapes
from cellvit_jax.models import ModelConfig
from cellvit_jax.models.cellvit import ENCODERS
from cellvit_jax.models.decoder import resize
from tests.networks import noise
from tests.parity.synthetic import draw, manifest

torch = pytest.importorskip("torch")
twins = pytest.importorskip("tests.parity.torch_encoders")

DEPTH = 4


class Case(NamedTuple):
    """A published model, the sizes that replace its own, and an image's size."""

    model: str
    config: ModelConfig
    sizes: dict[int, int]
    rules: tuple[Rule, ...]
    twin: partial
    image: tuple[int, int]


NARROW = {"depth": DEPTH, "skip_layers": (1, 2, 3, 4), "num_heads": 2}
SAM = ModelConfig.cellvit_sam_b(embed_dim=128, **NARROW | {"global_layers": (3,)})
UNI = ModelConfig.cellvit_uni(embed_dim=128, **NARROW)
VIRCHOW = ModelConfig.cellvit_virchow(embed_dim=160, **NARROW)
VIRCHOW2 = ModelConfig.cellvit_virchow2(embed_dim=160, **NARROW)
SAM_SIZES = {768: 128, 2304: 384, 3072: 512}
UNI_SIZES = {1024: 128, 3072: 384, 4096: 512}
VIRCHOW_SIZES = {1280: 160, 3840: 480, 6832: 854, 3416: 427}

CASES = (
    Case(
        "cellvit-sam-b", SAM, SAM_SIZES, sam.rules(SAM), partial(twins.sam, window=14), (320, 144)
    ),
    Case(
        "cellvit-uni", UNI, UNI_SIZES, uni.rules(UNI), partial(twins.dinov2, patch=16), (224, 224)
    ),
    Case("cellvit-uni", UNI, UNI_SIZES, uni.rules(UNI), partial(twins.dinov2, patch=16), (96, 336)),
    Case(
        "cellvit-virchow",
        VIRCHOW,
        VIRCHOW_SIZES,
        uni.rules(VIRCHOW),
        partial(twins.dinov2, patch=14),
        (256, 130),
    ),
    Case(
        "cellvit-virchow2",
        VIRCHOW2,
        VIRCHOW_SIZES,
        uni.rules(VIRCHOW2),
        partial(twins.dinov2, patch=14),
        (120, 300),
    ),
)


def narrow_state(case: Case) -> dict[str, np.ndarray]:
    """The first blocks of a published encoder, every size replaced by a smaller one."""
    state = {}
    for key, (shape, dtype) in manifest(case.model).items():
        block = re.match(r"encoder\.blocks\.(\d+)", key)
        if key.startswith(("encoder", "classifier_head")) and not (
            block and int(block[1]) >= DEPTH
        ):
            state[key] = draw(key, tuple(case.sizes.get(n, n) for n in shape), dtype)
    return state


def converted(case: Case, state: dict[str, np.ndarray]) -> nnx.Dict:
    encoder = ENCODERS[case.config.encoder]
    model = nnx.eval_shape(lambda: nnx.Dict(encoder=encoder(case.config, rngs=nnx.Rngs(0))))
    abstract = nnx.state(model)
    nnx.update(model, fill(abstract, rename(state, case.rules, shapes(abstract)).tensors, "f4"))
    return model


def difference(found: jax.Array, expected: torch.Tensor) -> float:
    """The largest one, as a part of the largest value."""
    reference = expected.numpy()
    return np.abs(np.asarray(found) - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}-{case.image[0]}")
def test_a_narrow_encoder_equals_its_twin(case: Case) -> None:
    state = narrow_state(case)
    image = np.array(noise(*case.image, 3))
    tensors = {key: torch.from_numpy(value).double() for key, value in state.items()}
    pixels = torch.from_numpy(image).double().permute(2, 0, 1)
    (first, *outputs), tissue = case.twin(tensors, pixels, heads=2)
    with jax.default_matmul_precision("highest"):
        encoder = converted(case, state)["encoder"]
        found = jax.jit(lambda encoder, x: encoder(x))(encoder, image[None])
        for block, before, after in zip(encoder.blocks, [first, *outputs], outputs, strict=False):
            x = before.numpy().astype(np.float32)[None]
            assert difference(jax.jit(lambda block, x: block(x))(block, x)[0], after) <= 1e-6
    assert difference(found.tissue[0], tissue) <= 1e-5
    for skip, output in zip(found.skips, outputs, strict=True):
        assert difference(skip[0], output.reshape(skip.shape[1:])) <= 1e-5


def test_features_are_resized_as_torch_does() -> None:
    x = np.array(noise(1, 36, 54, 5))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).double().permute(0, 3, 1, 2), (31, 64), mode="bilinear"
    )
    assert difference(resize(x, (31, 64)), expected.permute(0, 2, 3, 1)) <= 1e-5
