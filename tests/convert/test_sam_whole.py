"""Whole SAMs and SAM-Med2Ds from files to checkpoints and back."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import cellvit_jax as cj
from cellvit_convert import sam_whole
from cellvit_convert.cli import main
from cellvit_convert.content import Content
from cellvit_convert.families import identify, rules
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_convert.rules import find, restore, shapes
from cellvit_jax import checkpoint
from cellvit_jax.errors import CheckpointError
from cellvit_jax.inspection import inspect
from cellvit_jax.models import Sam, SamConfig
from cellvit_jax.torch_files import read_torch
from tests.convert.archives import write_archive
from tests.networks import save_small_sam
from tests.parity.synthetic import draw, manifest

CONFIGS = {
    "sam-vit-b": SamConfig.sam_b(),
    "sam-vit-h": SamConfig.sam_h(),
    "sam-med2d-vit-b": SamConfig.sam_med2d_b(),
    "sam-med2d-vit-h": SamConfig.sam_med2d_h(),
    "sam-med2d-vit-h-noadapter": SamConfig.sam_med2d_h(adapters=False),
}
SIZES = {"embed_dim": 32, "num_heads": 2, "depth": 3, "global_layers": (3,)}
NARROW = {768: 32, 2304: 96, 3072: 128, 192: 8}
State = dict[str, np.ndarray]


def narrow(model: str) -> State:
    """A published state dict with fewer channels and blocks in its encoder."""
    state = {}
    for key, (shape, dtype) in manifest(model).items():
        if any(f"blocks.{i}." in key for i in range(3, 12)):
            continue
        inner = {64: 16} if "rel_pos" in key else NARROW
        state[key] = draw(key, tuple(inner.get(n, n) for n in shape), dtype)
    return state


@pytest.fixture(params=["sam-vit-b", "sam-med2d-vit-b"])
def state(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> State:
    """A narrow network that is taken for a published one."""
    presets = tuple(dataclasses.replace(p, **SIZES) for p in sam_whole.PRESETS)
    monkeypatch.setattr(sam_whole, "PRESETS", presets)
    return narrow(request.param)


def is_med2d(state: State) -> bool:
    return any("Adapter" in key for key in state)


@pytest.mark.parametrize("model", CONFIGS)
def test_the_network_from_keys_and_shapes(model: str) -> None:
    content = Content(empty(model))
    family = identify(content)
    config = family.config(content)
    assert (family.name, config) == ("SAM and SAM-Med2D", CONFIGS[model])
    names = {find(key, rules(config)).name for key in content.tensors}
    assert len(names) == len(content.tensors)
    if config.depth == 12:  # making the others' shapes takes seconds
        assert names == set(shapes(abstract(config)))


def empty(model: str) -> State:
    """A state dict without memory."""
    rows = manifest(model).items()
    return {key: np.broadcast_to(np.float32(0), shape) for key, (shape, _) in rows}


def abstract(config: SamConfig) -> nnx.State:
    return nnx.state(checkpoint.network(config), checkpoint.WEIGHTS)


@pytest.mark.parametrize("model", CONFIGS)
def test_names_order_and_layout_come_back(model: str) -> None:
    table, tensors = rules(CONFIGS[model]), empty(model)
    ours = {}
    for key, tensor in tensors.items():
        name, axes = find(key, table)
        ours[name] = tensor.transpose(axes or range(tensor.ndim))
    theirs = restore(dict(sorted(ours.items())), table, {})
    assert {k: t.shape for k, t in theirs.items()} == {k: t.shape for k, t in tensors.items()}
    assert list(theirs) == list(tensors)


def test_a_changed_state_dict_is_a_diff(state: State) -> None:
    changed = dict(state) | {"mask_decoder.extra.weight": np.ones((2, 2), np.float32)}
    del changed["prompt_encoder.no_mask_embed.weight"]
    with pytest.raises(CheckpointError) as caught:
        translate(Content(changed))
    assert str(caught.value).splitlines()[1:] == [
        "? mask_decoder.extra.weight: no rule",
        "- prompt_encoder.no_mask_embed.embedding: in the model, not in the checkpoint",
    ]


def test_a_file_and_back_is_exact_and_described(state: State, tmp_path: Path) -> None:
    source = write_archive(tmp_path / "x.pth", {"model": state} if is_med2d(state) else state)
    assert main([str(source), str(tmp_path / "sam")]) == 0
    assert main([str(tmp_path / "sam"), str(tmp_path / "y.pth")]) == 0
    found = read_torch(tmp_path / "y.pth")
    found = found["model"] if is_med2d(state) else found
    assert list(found) == list(state)
    for key, tensor in state.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].tobytes() == tensor.tobytes(), key
    name = "sam_med2d_b" if is_med2d(state) else "sam_b"
    for described in map(str, (inspect(source), inspect(tmp_path / "sam"))):
        assert f"architecture {name} (arch: not given)\nclasses      none" in described
        assert "ignored      nothing" in described


def test_it_loads_ready_for_prompts(state: State, tmp_path: Path) -> None:
    wrapped = {"model": state, "optimizer": {"state": {}}}
    source = write_archive(tmp_path / "x.pth", wrapped if not is_med2d(state) else state)
    assert main([str(source), str(tmp_path / "sam"), "--dtype", "bfloat16"]) == 0
    model = cj.load(tmp_path / "sam")
    assert isinstance(model, Sam)
    assert model.config.adapters == is_med2d(state)
    assert model.card.tile == model.config.image_size == (256 if is_med2d(state) else 1024)
    np.testing.assert_allclose(np.array(model.card.mean) * 255, sam_whole.MEAN)
    stored = checkpoint.read_types(tmp_path / "sam")
    types = {name: str(leaf.dtype) for name, leaf in stored.items()}
    assert types.pop("prompt_encoder.frequencies") == "float32"  # half of it would be another place
    assert set(types.values()) == {"bfloat16"}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (SamConfig.sam_b(embed_dim=384), "embed_dim is 768, not 384"),
        (SamConfig.sam_l(position_grid=32), "position_grid is 64, not 32"),
        (SamConfig.sam_h(architecture="sam"), "has no sam of this size: it builds sam_b, sam_l"),
    ],
)
def test_what_the_originals_cannot_build_is_said(config: SamConfig, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        sam_whole.arch(config)


def test_a_refusal_leaves_nothing_behind(tmp_path: Path, capsys) -> None:
    save_small_sam(tmp_path / "sam")
    assert main([str(tmp_path / "sam"), str(tmp_path / "x.pth")]) == 2
    assert "the original code has no sam of this size" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sam"]


@pytest.mark.slow
def test_a_published_size_goes_there_and_back(tmp_path: Path) -> None:
    state = {k: draw(k, shape, dtype) for k, (shape, dtype) in manifest("sam-vit-b").items()}
    assert main([str(write_archive(tmp_path / "x.pth", state)), str(tmp_path / "sam")]) == 0
    assert main([str(tmp_path / "sam"), str(tmp_path / "y.pth")]) == 0
    found = read_torch(tmp_path / "y.pth")
    assert list(found) == list(state)
    assert all(found[key].tobytes() == tensor.tobytes() for key, tensor in state.items())
