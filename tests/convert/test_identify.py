"""What a checkpoint is, told from its content."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellvit_convert.card import model_card
from cellvit_convert.content import Content
from cellvit_convert.families import identify
from cellvit_convert.pytorch_to_orbax import translate
from cellvit_jax.card import PANNUKE_CLASSES, PANNUKE_TISSUES, ModelCard
from cellvit_jax.errors import CellViTError, CheckpointError
from cellvit_jax.models import ModelConfig
from tests.convert.archives import write_archive
from tests.convert.states import GENERIC, MODELS, zeros
from tests.shared import shared

STATES = {model: zeros(model) for model in MODELS}
EXPECTED = {
    "cellvit-256": ModelConfig.cellvit_256(),
    "cellvit-256-shared": ModelConfig.cellvit_256(shared_trunk=True),
    "cellvit-256-regression": ModelConfig.cellvit_256(7, 4, regression_loss=True),
    "cellvit-generic-d192": ModelConfig.cellvit(
        embed_dim=192, depth=6, num_heads=3, skip_layers=(1, 3, 5, 6)
    ),
    "cellvit-sam-b": ModelConfig.cellvit_sam_b(),
    "cellvit-sam-l": ModelConfig.cellvit_sam_l(),
    "cellvit-sam-h": ModelConfig.cellvit_sam_h(),
    "cellvit-uni": ModelConfig.cellvit_uni(),
    "cellvit-virchow": ModelConfig.cellvit_virchow(),
    "cellvit-virchow2": ModelConfig.cellvit_virchow2(),
}


def describe(model: str, config: dict[str, Any] | None = None, **fields: Any) -> ModelConfig:
    content = Content(STATES[model], config=config or {}, **fields)
    return identify(content).config(content)


def card(model: str, config: dict[str, Any] | None = None, **fields: Any) -> ModelCard:
    content = Content(STATES[model], config=config or {}, **fields)
    return model_card(content, EXPECTED[model])


@pytest.mark.parametrize("model", MODELS)
def test_architecture_from_keys_and_shapes(model: str) -> None:
    config = GENERIC if model == "cellvit-generic-d192" else {}
    assert describe(model, config) == EXPECTED[model]


def test_what_arch_says_does_not_matter() -> None:
    assert describe("cellvit-256", arch="CellViTSAM") == EXPECTED["cellvit-256"]


def test_other_heads_and_skips_make_it_a_generic_cellvit() -> None:
    config = describe("cellvit-256", {"model.num_heads": 12, "model.extract_layers": [1, 2, 3, 4]})
    assert (config.architecture, config.num_heads) == ("cellvit", 12)
    assert config.skip_layers == (1, 2, 3, 4)


def test_dropout_rates_come_from_the_config() -> None:
    rates = {"training.drop_rate": 0.1, "training.attn_drop_rate": 0, "training.drop_path_rate": 2}
    config = describe("cellvit-256", rates)
    assert (config.drop_rate, config.attention_drop_rate, config.drop_path_rate) == (0.1, 0, 0)


def test_skips_that_cannot_be_guessed_are_asked_for() -> None:
    with pytest.raises(CheckpointError, match=r"does not say model\.extract_layers"):
        describe("cellvit-generic-d192")


@pytest.mark.parametrize(
    "config",
    [
        {"model.num_heads": 0},
        {"model.num_heads": 7},
        {"model.num_heads": "six"},
        {"model.num_heads": np.ones(3)},
        {"model.extract_layers": []},
        {"model.extract_layers": [3, 6]},
        {"model.extract_layers": [3, 6, 9, 99]},
        {"model.extract_layers": {"a": 1}},
    ],
)
def test_a_config_that_makes_no_sense_is_an_error(config: dict[str, Any]) -> None:
    with pytest.raises(CellViTError):
        describe("cellvit-256", config)


def test_endless_encoders_are_refused() -> None:
    blocks = {f"encoder.blocks.{i}.attn.qkv.weight": np.zeros((1, 1)) for i in range(300)}
    content = Content(STATES["cellvit-256"] | blocks)
    with pytest.raises(CheckpointError, match="300 blocks"):
        identify(content).config(content)


def test_unknown_architectures_are_named() -> None:
    keys = ("fc1.weight", "fc1.bias")
    with pytest.raises(
        CheckpointError, match=r"arch is 'LinearClassifier'.*fc1\.weight, fc1\.bias"
    ):
        identify(Content(dict.fromkeys(keys, np.zeros(1)), arch="LinearClassifier"))


@pytest.mark.parametrize("key", ["reg_token", "neck.0.weight"])
def test_a_mixture_of_encoders_is_not_known(key: str) -> None:
    with pytest.raises(CheckpointError, match="not known"):
        identify(Content(STATES["cellvit-256"] | {f"encoder.{key}": np.zeros(1)}))


def test_windows_and_global_blocks_come_from_the_relative_positions() -> None:
    tables = {
        f"encoder.blocks.{i}.attn.rel_pos_{axis}": np.zeros((127 if i < 2 else 15, 64))
        for i in range(12)
        for axis in "hw"
    }
    content = Content(STATES["cellvit-sam-b"] | tables)
    config = identify(content).config(content)
    assert (config.architecture, config.window_size) == ("cellvit_sam", 8)
    assert config.global_layers == (1, 2)


def test_the_heads_of_another_width_are_asked_for() -> None:
    norms = [key for key in STATES["cellvit-uni"] if ".norm" in key]
    content = Content(STATES["cellvit-uni"] | dict.fromkeys(norms, np.zeros(80)))
    with pytest.raises(CheckpointError, match=r"does not say model\.num_heads"):
        identify(content).config(content)


@pytest.mark.parametrize("model", ["cellvit-sam-b", "cellvit-uni", "cellvit-virchow"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 0), (1, 0, 0, 0)])
def test_encoders_of_empty_tensors_are_refused(model: str, shape: tuple[int, ...]) -> None:
    state = {k: np.zeros(shape) if "encoder" in k else v for k, v in STATES[model].items()}
    with pytest.raises(CellViTError):
        translate(Content(state))


def test_a_real_head_is_one() -> None:
    content = Content.read(shared("data/classifiers/sam-h/consep.pth"))
    assert identify(content).name == "cell classifier heads"


# ----- files -----------------------------------------------------------------------------------


def test_a_bare_state_dict_is_read(tmp_path: Path) -> None:
    content = Content.read(write_archive(tmp_path / "x.pth", {"a.weight": np.ones(3)}))
    assert (list(content.tensors), content.arch, content.config) == (["a.weight"], "", {})


@pytest.mark.parametrize(
    "value", [{}, {"epoch": 3, "args": {}}, {"model_state_dict": {"a": 1}}, [1, 2], "text", 7]
)
def test_files_without_a_state_dict(tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match="holds no state dict"):
        Content.read(write_archive(tmp_path / "x.pth", value))


def test_odd_fields_are_left_aside(tmp_path: Path) -> None:
    value = {"arch": 3, "epoch": "x", "config": [1], "model_state_dict": {"a": np.ones(1)}}
    content = Content.read(write_archive(tmp_path / "x.pth", value))
    assert (content.arch, content.epoch, content.config) == ("", None, {})


# ----- cards -----------------------------------------------------------------------------------


def test_names_from_the_config() -> None:
    types = {
        "Background": 0,
        "Other": 1,
        "Tumour": 2,
        "Immune": 3,
        "Stroma": 4,
        "Dead": 5,
        "Epi": 6,
    }
    tissues = {"Skin": 1, "Colon": 0, "Lung": 2, "Liver": 3}
    config = {f"dataset_config.nuclei_types.{name}": i for name, i in types.items()}
    config |= {f"dataset_config.tissue_types.{name}": i for name, i in tissues.items()}
    found = card("cellvit-256-regression", config)
    assert [c.name for c in found.classes] == list(types)
    assert found.classes[1].color == (255, 0, 0)
    assert found.tissues == ("Colon", "Skin", "Lung", "Liver")


def test_names_of_pannuke_where_the_numbers_are_its() -> None:
    assert card("cellvit-256").classes == PANNUKE_CLASSES
    assert card("cellvit-256").tissues == PANNUKE_TISSUES


@pytest.mark.parametrize("ids", [[0, 1], [1, 1, 2, 3, 4, 5, 6], ["a"] * 7])
def test_numbers_for_names_where_the_config_does_not_fit(ids: list[Any]) -> None:
    config = {f"dataset_config.nuclei_types.n{i}": value for i, value in enumerate(ids)}
    found = card("cellvit-256-regression", config)
    assert [c.name for c in found.classes[1:]] == [f"class {i}" for i in range(1, 7)]
    assert found.tissues == tuple(f"tissue {i}" for i in range(4))


@pytest.mark.parametrize(("model", "tile"), [("cellvit-sam-h", 1024), ("cellvit-virchow2", 512)])
def test_tiles_are_those_of_the_training(model: str, tile: int) -> None:
    assert card(model).tile == tile


def test_normalisation_and_provenance() -> None:
    config = {"transformations.normalize.mean": [0.1, 0.2, 0.3], "transformations.normalize.std": 1}
    found = card("cellvit-256", config, arch="CellViT256", epoch=130)
    assert found.mean == (0.1, 0.2, 0.3)
    assert found.std == (0.5, 0.5, 0.5)
    assert "CellViT256, epoch 130" in found.provenance
