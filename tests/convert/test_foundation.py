"""Foundation encoders from the files that their authors publish to a checkpoint, and back."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import cellvit_jax as cj
from cellvit_convert import foundation
from cellvit_convert.cli import main
from cellvit_convert.content import Content
from cellvit_convert.families import identify, rules
from cellvit_convert.rules import find, restore
from cellvit_jax.errors import CheckpointError, InputError
from cellvit_jax.inference.segment import predictor_of
from cellvit_jax.inspection import inspect
from cellvit_jax.models import Encoder, EncoderConfig
from cellvit_jax.torch_files import read_torch
from tests.convert.archives import write_archive
from tests.convert.foundations import state, whole
from tests.networks import noise

HEAD = {  # DINO's projection head, which no encoder has
    "head.mlp.0.weight": (8, 128),
    "head.mlp.0.bias": (8,),
    "head.last_layer.weight_g": (9, 1),
    "head.last_layer.weight_v": (9, 8),
}
# the CellViT whose encoder it is, what stands before the names, and what it is
WHOLE = (
    ("cellvit-256", "backbone.", EncoderConfig.hipt_256()),
    ("cellvit-256", "module.backbone.", EncoderConfig.hipt_256()),
    ("cellvit-256", "", EncoderConfig.hipt_256()),
    ("cellvit-sam-b", "image_encoder.", EncoderConfig.sam_b()),
    ("cellvit-sam-h", "image_encoder.", EncoderConfig.sam_h()),
    ("cellvit-uni", "", EncoderConfig.uni()),
    ("cellvit-virchow", "", EncoderConfig.virchow()),
    ("cellvit-virchow2", "", EncoderConfig.virchow2()),
)


def dino(module: str = "", seed: str = "") -> dict[str, np.ndarray]:
    """One part of a DINO checkpoint of a narrow HIPT."""
    head = {f"{module}{key}": np.ones(shape, np.float32) for key, shape in HEAD.items()}
    return state("hipt", f"{module}backbone.", seed) | head


@pytest.fixture(scope="module")
def hipt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    value = {"student": dino("module.", "s"), "teacher": dino(), "epoch": 300, "optimizer": {}}
    return write_archive(tmp_path_factory.mktemp("hipt") / "any-name.bin", value)


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        assert found[key].tobytes() == tensor.tobytes(), key


# ----- what a file is --------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "prefix", "config"), WHOLE)
def test_an_encoder_is_told_by_its_content(model: str, prefix: str, config: EncoderConfig) -> None:
    content = Content(whole(model, prefix))
    assert identify(content).config(content) == config


@pytest.mark.parametrize(("model", "prefix", "config"), WHOLE)
def test_every_key_has_one_name_and_comes_back(
    model: str, prefix: str, config: EncoderConfig
) -> None:
    tensors, table = whole(model, prefix), rules(config, prefix)
    names = {find(key, table): tensor for key, tensor in tensors.items()}
    assert len(names) == len(tensors)
    ours = {p.name: np.transpose(t, p.axes or range(t.ndim)) for p, t in names.items()}
    theirs = restore(dict(sorted(ours.items())), table, {})
    assert list(theirs) == list(tensors)
    for key, tensor in tensors.items():
        assert theirs[key].__array_interface__ == tensor.__array_interface__


def test_a_cellvit_is_no_encoder() -> None:
    decoder = {"decoder0.0.block.0.weight": np.zeros((32, 3, 3, 3), np.float32)}
    assert not foundation.recognise(Content(whole("cellvit-256") | decoder))
    assert not foundation.recognise(Content(whole("cellvit-256", "encoder.")))


@pytest.mark.parametrize(("name", "sentence"), [("hipt", "hipt"), ("uni", "uni")])
def test_cards_say_how_images_are_normalised(name: str, sentence: str) -> None:
    content = Content(whole({"hipt": "cellvit-256", "uni": "cellvit-uni"}[name]))
    family = identify(content)
    card = family.card(content, family.config(content))
    assert card.mean == {"hipt": (0.5, 0.5, 0.5), "uni": (0.485, 0.456, 0.406)}[name]
    assert (card.mpp, card.tile, card.classes) == (0.5, 224, ())
    assert sentence in card.citation.lower()


# ----- files -----------------------------------------------------------------------------------


def test_a_converted_encoder_gives_tokens(hipt: Path, tmp_path: Path, capsys) -> None:
    assert main([str(hipt), str(tmp_path / "enc")]) == 0
    assert "1 × student" in capsys.readouterr().out
    model = cj.load(tmp_path / "enc")
    assert isinstance(model, Encoder)
    np.testing.assert_array_equal(
        model.encoder.norm.scale[...], state("hipt")["norm.weight"], strict=True
    )
    features = model(noise(2, 32, 64, 3))
    assert {name: x.shape for name, x in features.items()} == {
        "tokens": (2, 2, 4, 128),
        "cls": (2, 128),
    }
    with pytest.raises(InputError, match="this is a vit_encoder"):
        predictor_of(model)


@pytest.mark.parametrize(
    ("part", "module", "seed"), [("teacher", "", ""), ("student", "module.", "s")]
)
def test_either_part_goes_there_and_back(
    part: str, module: str, seed: str, hipt: Path, tmp_path: Path
) -> None:
    assert main([str(hipt), str(tmp_path / "enc"), "--part", part]) == 0
    assert (
        f"the {part} of a training with DINO, epoch 300"
        in cj.load(tmp_path / "enc").card.provenance
    )
    assert main([str(tmp_path / "enc"), str(tmp_path / "y.pth")]) == 0
    found = read_torch(tmp_path / "y.pth")
    assert found.keys() == {part, "epoch"}
    same(found[part], state("hipt", f"{module}backbone.", seed))


def test_what_is_ignored_is_named(hipt: Path) -> None:
    found = inspect(hipt)
    assert set(found.ignored) == {*HEAD, "student"}
    assert "ignored      2 × head.mlp, 2 × head.last_layer, 1 × student" in str(found)
    assert "classes      none" in str(found)


def test_a_single_part_needs_no_choice(tmp_path: Path, capsys) -> None:
    source = write_archive(tmp_path / "x.pth", {"student": dino("module."), "args": {}})
    assert main([str(source), str(tmp_path / "enc")]) == 0
    assert main([str(source), str(tmp_path / "other"), "--part", "teacher"]) == 2
    assert "has no teacher: it has student" in capsys.readouterr().err
    assert main([str(tmp_path / "enc"), str(tmp_path / "y.pth"), "--part", "student"]) == 2
    assert "--part is for files" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["uni", "virchow2", "sam"])
def test_a_bare_state_dict_goes_there_and_back(name: str, tmp_path: Path) -> None:
    prefix = "image_encoder." if name == "sam" else ""
    expected = state(name, prefix)
    value = {"model_state_dict": expected, "config": {"model.num_heads": 2}}
    source = write_archive(tmp_path / "x.pth", value)
    assert main([str(source), str(tmp_path / "enc")]) == 0
    assert main([str(tmp_path / "enc"), str(tmp_path / "y.pth")]) == 0
    same(read_torch(tmp_path / "y.pth"), expected)


def test_safetensors(tmp_path: Path) -> None:
    tensors, entries, end = state("hipt"), {}, 0
    for key, tensor in tensors.items():
        offsets = [end, end := end + tensor.nbytes]
        entries[key] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": offsets}
    header = json.dumps(entries).encode()
    body = b"".join(tensor.tobytes() for tensor in tensors.values())
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + body)
    assert inspect(tmp_path / "x").config.architecture == "vit_encoder"
    assert main([str(tmp_path / "x"), str(tmp_path / "enc")]) == 0
    assert main([str(tmp_path / "enc"), str(tmp_path / "y.pth")]) == 0
    same(read_torch(tmp_path / "y.pth"), tensors)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: s.pop("norm.bias"), "- encoder.norm.bias: in the model, not in"),
        (lambda s: s.update(mask_token=np.ones(1)), r"\? mask_token: no rule"),
        (lambda s: s.update({"head.weight": np.ones((9, 128))}), r"\+ encoder.head.kernel: in the"),
        (lambda s: s.update({"norm.bias": np.ones(9)}), r"! encoder.norm.bias: \(9,\), the model"),
    ],
)
def test_a_changed_state_dict_is_a_diff(change, line: str, tmp_path: Path) -> None:
    tensors = state("hipt")
    change(tensors)
    with pytest.raises(CheckpointError, match=f"does not fit the model:\n(.*\n)*{line}"):
        inspect(write_archive(tmp_path / "x.pth", tensors))


def test_the_heads_of_an_unknown_width_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not say model\.num_heads"):
        inspect(write_archive(tmp_path / "x.pth", state("uni")))


def test_a_gate_that_no_foundation_model_has_stays_here() -> None:
    config = EncoderConfig.from_dict(EncoderConfig.virchow().to_dict() | {"gate": "gelu"})
    with pytest.raises(CheckpointError, match="gate with silu, this encoder with gelu"):
        foundation.arch(config)
