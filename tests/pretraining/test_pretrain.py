"""The command `pretrain`, from tiles to an encoder that a CellViT begins with."""

import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

pytest.importorskip("grain")

import cellvit_jax as cj
from cellvit_jax import checkpoint, zoo
from cellvit_jax.errors import OutputError
from cellvit_jax.models import Encoder, EncoderConfig, ModelConfig
from cellvit_jax.pretraining import encoders, tile_run
from cellvit_jax.pretraining.methods import new_config
from cellvit_jax.pretraining.pooling import vectors
from cellvit_jax.training.config import Source
from cellvit_jax.training.start import find as found_by_train
from cellvit_jax.training.start import is_preset
from tests.networks import ENCODER_CARD
from tests.pretraining.runs import filled_encoder
from tests.training.written import rows
from tests.training_data.fields import field

SETTINGS = [
    "recipe.tile=64",
    "recipe.batch_size=8",
    "recipe.epochs=4",
    "recipe.steps_per_epoch=1",
    "recipe.save_every=2",
    "recipe.schedule.warmup_steps=0",
    "recipe.drop_path_rate=0.1",
    "loggers=[]",
]
OWN = {
    "simclr": ["method.views.side=32", "method.hidden=12", "method.dim=6"],
    "dino": [
        "method.whole.side=32",
        "method.parts.side=16",
        "method.parts.count=2",
        "method.hidden=12",
        "method.bottleneck=6",
        "method.prototypes=10",
    ],
    "supervised": ["method.views.side=32"],
}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:
    """Two classes of pictures, that two tiles of 64 pixels fit in."""
    root = tmp_path_factory.mktemp("tiles")
    image = field(64, 128).image
    for name, tone in (("Dark", 0.5), ("Light", 1.0)):
        (root / name).mkdir()
        for number in range(5):
            pixels = (image * tone).astype(np.uint8) + np.uint8(number)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    model = filled_encoder()
    path = tmp_path_factory.mktemp("encoder") / "small"
    checkpoint.save(path, nnx.state(model, checkpoint.WEIGHTS), model.config, ENCODER_CARD)
    return path


def config(method: str, tiles: Path, encoder: Path, *more: str):
    paths = [tiles] if method == "supervised" else [tiles / "Dark", tiles / "Light"]
    data = tuple(Source(path=str(path)) for path in paths)
    plain = new_config(method, data=data, encoder=str(encoder))
    return plain.changed([*SETTINGS, *OWN[method], *more])


def weights(model) -> dict[str, np.ndarray]:
    leaves = checkpoint.leaves(nnx.to_pure_dict(nnx.state(model, checkpoint.WEIGHTS)))
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


@pytest.fixture(scope="module")
def whole(tiles, encoder, tmp_path_factory):
    """Runs of every method that nothing interrupted."""
    made: dict[str, Path] = {}

    def run(method: str) -> Path:
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method) / "run"
            tile_run.run(config(method, tiles, encoder), made[method], quiet=True)
        return made[method]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dino", "simclr", "supervised"])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    method, whole, tiles, encoder, tmp_path, monkeypatch
):
    out, real = tmp_path / "run", tile_run.stream

    def failing(*arguments):
        make = real(*arguments)
        return lambda step: itertools.chain(
            itertools.islice(make(step), max(0, 3 - step)), iter([None])
        )

    monkeypatch.setattr(tile_run, "stream", failing)
    with pytest.raises(AttributeError):  # of a batch that is none
        tile_run.run(config(method, tiles, encoder), out, quiet=True)
    monkeypatch.setattr(tile_run, "stream", real)
    assert "2" in {path.name for path in (out / "state").iterdir()}
    assert not (out / "last").exists()
    tile_run.run(config(method, tiles, encoder), out, quiet=True)
    assert rows(out) == rows(whole(method))
    one, other = (weights(cj.load(run / "last")) for run in (out, whole(method)))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value)


@pytest.mark.slow
def test_an_encoder_comes_out_and_has_learnt(whole, encoder):
    run = whole("dino")
    model, before = cj.load(run / "last"), weights(cj.load(encoder))
    assert isinstance(model, Encoder)
    assert model.card.provenance.endswith("Pretrained by dino on Dark, Light.")
    assert model.card.mean == cj.load(encoder).card.mean
    after = weights(model)
    assert after.keys() == before.keys()
    assert not np.array_equal(after["encoder.pos_embed"], before["encoder.pos_embed"])
    assert rows(run)[0].keys() == {"step", "loss", "teacher", "teacher_mean", "grad_norm"}


@pytest.mark.slow
def test_a_cellvit_begins_with_exactly_these_weights(whole, tmp_path, call):
    run = whole("dino")
    source = weights(cj.load(run / "last"))
    code, _, errors = call(
        "init", "--encoder", run / "last", "--out", tmp_path / "new", "--classes", "A"
    )
    assert code == 0, errors
    data = cj.data.Dataset("made", (), ("A", "B"))
    begun = found_by_train(str(run / "last"), data, tile=64)
    for found in (weights(cj.load(tmp_path / "new")), begun.weights):
        for name, value in source.items():
            np.testing.assert_array_equal(found[name], value, strict=True)


@pytest.mark.slow
def test_a_run_of_one_config_is_not_gone_on_with_by_another(whole, tiles, encoder):
    with pytest.raises(OutputError, match=r"recipe\.seed: 0, now 1"):
        tile_run.run(config("dino", tiles, encoder, "recipe.seed=1"), whole("dino"), quiet=True)


@pytest.mark.slow
def test_labels_are_learnt_and_measured_by_neighbours(call, tiles, encoder, tmp_path):
    out = tmp_path / "run"
    told = [word for one in [*SETTINGS, *OWN["supervised"]] for word in ("--set", one)]
    start = ["pretrain", "--method", "supervised", "--encoder", encoder, "--data", tiles]
    code, said, errors = call(*start, "--out", out, *told)
    assert code == 0, errors
    assert "data         16 tiles of 64×64 pixels in 10 slides or images" in said
    assert "classes      Dark, Light; measured on 4 other tiles" in said
    assert f"cellvit-jax train --data FOLDER --model {out / 'best'}" in said
    scores = [row["knn"] for row in rows(out) if "knn" in row]
    assert len(scores) == 5
    assert f"of {max(scores):.4f} by nearest neighbours" in said
    assert isinstance(cj.load(out / "best"), Encoder)


@pytest.mark.slow
def test_a_dry_run_tells_and_writes_nothing(call, tiles, encoder, tmp_path):
    told = [word for one in [*SETTINGS, *OWN["simclr"]] for word in ("--set", one)]
    start = ["pretrain", "--method", "simclr", "--data", tiles / "Dark", "--encoder", encoder]
    code, said, errors = call(*start, "--out", tmp_path / "run", "--dry-run", *told)
    assert code == 0, errors
    assert "batch        views 8×2×32×32×3\n" in said
    assert re.search(r"memory .* MiB on each device: .*\none step .* loss \d", said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "recipe.batch_size=1"], "a batch of 1 has no other tiles to differ from"),
        (["--set", "recipe.batch_size=64"], "there are 20 tiles, too few for a batch of 64"),
        (["--set", "recipe.tile=256"], "all are smaller than 256×256 pixels at 0.25 µm"),
        (["--set", "method.views.count=3"], "between 2 views of a tile, not 3"),
        (["--set", "method.views.side=40"], "multiples of the patch size 16, not 40×40"),
        (["--set", "recipe.objective.hv_mse=2"], "recipe.objective is of annotated nuclei"),
        (["--set", "method.temprature=1"], "did you mean temperature?"),
        (["--encoder", "vit-tinny"], "did you mean vit-tiny?"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_learnt_is_one_sentence(call, tiles, encoder, tmp_path, words, sentence):
    data = [] if "--data" in words else ["--data", tiles / "Dark", tiles / "Light"]
    enc = [] if "--encoder" in words else ["--encoder", encoder]
    told = [word for one in [*SETTINGS, *OWN["simclr"]] for word in ("--set", one)]
    out = ["--out", tmp_path / "run"]
    code, _, errors = call("pretrain", "--method", "simclr", *data, *enc, *out, *told, *words)
    assert code == 2
    assert sentence in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run").exists()


def test_a_student_without_a_teacher_is_one_sentence(call, tiles, encoder, tmp_path):
    changes = [*SETTINGS, *OWN["dino"], "recipe.ema_decay=null"]
    told = [word for one in changes for word in ("--set", one)]
    start = ["pretrain", "--method", "dino", "--data", tiles / "Dark", "--encoder", encoder]
    code, _, errors = call(*start, "--out", tmp_path / "run", *told)
    assert code == 2
    assert "give recipe.ema_decay" in errors


def test_the_encoder_of_a_cellvit_may_go_on():
    begun = encoders.find(zoo.DEFAULT, mpp=0.25, tile=64, how="Pretrained")
    assert begun.config.architecture == "cellvit_tiny_encoder"
    assert checkpoint.kind(begun.config).network is Encoder
    found = weights(cj.load(zoo.DEFAULT))
    names = {name for name in found if name.startswith("encoder.")}
    assert begun.weights.keys() == names - {"encoder.head.kernel", "encoder.head.bias"}
    for name, value in begun.weights.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("name", encoders.PRESETS)
def test_every_preset_is_an_encoder(name):
    config = encoders.PRESETS[name]()
    assert isinstance(config, EncoderConfig)
    assert encoders.alone(config) == config
    begun = encoders.find(name, mpp=0.5, tile=256, how="Pretrained")
    assert (begun.config, begun.weights, begun.card.mpp) == (config, {}, 0.5)


def test_over_the_tiny_encoder_there_is_the_tiny_cellvit():
    assert ModelConfig.over(EncoderConfig.tiny(), 5, 0) == ModelConfig.cellvit_tiny()
    assert is_preset(ModelConfig.over(EncoderConfig.tiny(), 5, 0).architecture)


def test_sam_has_no_cls_token_and_learns_by_its_mean():
    model = filled_encoder(encoder="sam")
    views = np.zeros((1, 2, 32, 32, 3), np.uint8)
    pooled = jax.jit(vectors, static_argnames="pool")
    cls, mean = (pooled(model, views, pool=pool) for pool in ("cls", "mean"))
    np.testing.assert_array_equal(cls, mean)
