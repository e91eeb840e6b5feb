"""The command `distil`, from images alone to a model that can be trained further."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from tests.networks import save_encoder, save_small
from tests.training.written import rows
from tests.training_data.fields import field

pytest.importorskip("grain")

import cellvit_jax as cj
from cellvit_jax import checkpoint
from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.errors import InputError
from cellvit_jax.pretraining import distil_run
from cellvit_jax.pretraining.images import open_images
from cellvit_jax.training import loop
from cellvit_jax.training.config import Source, Validation

QUICK = {
    "recipe.epochs": 2,
    "recipe.steps_per_epoch": 3,
    "recipe.batch_size": 8,
    "recipe.tile": 32,
    "recipe.save_every": 2,
    "recipe.calibration_batches": 2,
    "loggers": "[]",
}
ASSIGNMENTS = [f"{name}={value}" for name, value in QUICK.items()]
SETTINGS = [word for assignment in ASSIGNMENTS for word in ("--set", assignment)]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of images, some of them deeper, beside a file that is none."""
    root = tmp_path_factory.mktemp("images")
    (root / "more").mkdir()
    for name in ("a.png", "b.jpg", "more/c.tif"):
        Image.fromarray(field(64, 48).image).save(root / name)
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("annotated")
    sample = field(64, 64)
    for split in ("train", "val"):
        for part in ("images", "masks", "types"):
            (root / split / part).mkdir(parents=True)
        Image.fromarray(sample.image).save(root / split / "images/a.png")
        Image.fromarray(sample.instances.astype(np.uint16)).save(root / split / "masks/a.png")
        assert sample.types is not None
        Image.fromarray(sample.types).save(root / split / "types/a.png")
    (root / "classes.yaml").write_text("classes: {1: Round, 2: Long}\n")
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """A teacher, a student of half its width, one who knows other types, and an encoder."""
    root = tmp_path_factory.mktemp("networks")
    plain = {"shared_trunk": True, "num_tissues": 0}
    save_small(root / "teacher", **plain)
    save_small(root / "student", embed_dim=8, **plain)
    save_small(root / "other", ModelCard(cell_classes("Round", "Flat"), tile=64), **plain)
    save_encoder(root / "encoder", depth=4)
    return root


def weights(path: Path) -> list[np.ndarray]:
    return jax.tree.leaves(nnx.state(checkpoint.load(path), checkpoint.WEIGHTS))


@pytest.fixture(scope="module")
def whole(images, networks, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    distil_run.run(config(images, networks), out, quiet=True)
    return out


def config(
    data: Path, networks: Path, student: str = "student", **fields
) -> distil_run.DistilConfig:
    teacher, student = (str(networks / name) for name in ("teacher", student))
    return distil_run.new_config((str(data),), teacher, student, ASSIGNMENTS, **fields)


@pytest.mark.slow
def test_images_alone_make_a_model_that_training_goes_on_with(
    whole, networks, annotated, call, tmp_path
):
    assert [row["step"] for row in rows(whole)] == list(range(6))
    assert {"features", "found", "binary", "types", "loss", "grad_norm"} <= rows(whole)[0].keys()
    model = cj.load(whole / "best")
    assert model.config.embed_dim == 8
    assert [one.name for one in model.card.classes[1:]] == ["Round", "Long"]
    assert "what teacher makes of" in model.card.provenance
    assert not hasattr(model, "widen")
    code, told, _ = call(
        *("train", "--data", annotated, "--model", whole / "best", "--recipe", "demo"),
        *("--out", tmp_path / "run", "--dry-run", *SETTINGS),
    )
    assert code == 0
    assert "begins anew" not in told  # the types that were distilled are those of the data
    assert "loss" in told


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(whole, images, networks, tmp_path, call):
    chosen = config(images, networks)
    job = distil_run.prepare(chosen)

    def failing(start: int):
        for step, batch in enumerate(job.batches(start), start):
            if step == 3:
                raise KeyboardInterrupt
            yield batch

    out = tmp_path / "run"
    distil_run.configs.keep(chosen, out)
    with pytest.raises(KeyboardInterrupt):
        loop.train(
            out,
            job.network.config,
            job.network.card,
            job.recipe,
            failing,
            task=job.task,
            weights=job.network.weights,
            mesh=job.mesh,
        )
    code, told, errors = call("distil", "--config", out / "config.json")
    assert code == 0, errors
    assert f"cellvit-jax train --data DATA --model {out / 'best'}" in told
    assert rows(out) == rows(whole)
    for one, other in zip(weights(whole / "last"), weights(out / "last"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_annotated_data_measures_the_student_and_teaches_it_nothing(annotated, networks):
    job = distil_run.prepare(config(annotated, networks))
    assert job.validation is not None
    batch = next(job.batches(0))
    assert set(batch) == {"image"}
    assert batch["image"].shape == (8, 32, 32, 3)
    assert job.news[-1].startswith("data         1 images")
    features = distil_run.prepare(config(annotated, networks, maps=False))
    assert features.validation is None  # its decoder knows nothing
    assert not features.task.losses.maps


@pytest.mark.slow
def test_a_dry_run_tells_and_writes_nothing(images, networks, tmp_path, call):
    teacher = ("--teacher", networks / "teacher", "--student", networks / "student")
    code, told, errors = call(
        *("distil", "--data", images, *teacher, "--out", tmp_path / "run", "--dry-run", *SETTINGS)
    )
    assert code == 0, errors
    assert "data         3 images to learn from\nbatch        image 8×32×32×3\n" in told
    assert re.search(r"memory .* MiB on each device: .*\none step .* loss \d", told)
    assert not (tmp_path / "run").exists()


def test_an_encoder_teaches_features_to_a_new_network(images, networks):
    chosen = distil_run.new_config(
        (str(images),), str(networks / "encoder"), "cellvit-nano", ASSIGNMENTS
    )
    job = distil_run.prepare(chosen)
    assert [one.name for one in job.network.card.classes[1:]] == ["Cell"]
    assert job.news[-1] == "note         the student is larger than its teacher"


def test_the_teacher_is_in_bfloat16_where_that_is_fast():
    assert distil_run.compute_type("auto") == "float32"  # these tests run on CPU
    assert distil_run.compute_type("bfloat16") == "bfloat16"


def test_images_of_all_folders_count_as_their_shares_say(images, annotated):
    sources = [Source(path=str(images), share=2.0), Source(path=str(annotated))]
    found = open_images(sources, Validation())
    assert [sample.name for sample in found.samples] == ["a", "b", "c", "a"]
    np.testing.assert_array_equal(found.weights, [2, 2, 2, 1])
    assert found.classes == ("Round", "Long")
    assert found.measured is None  # the first source has no annotations


def test_what_cannot_be_learnt_is_one_sentence(images, networks, tmp_path, call):
    def told(*words: object) -> str:
        code, _, errors = call("distil", *SETTINGS, "--out", tmp_path / "run", *words)
        assert code == 2
        return errors

    teacher = ("--teacher", networks / "teacher", "--student", networks / "student")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in told("--data", tmp_path / "empty", *teacher)
    assert "not there" in told("--data", tmp_path / "none", *teacher)
    assert "say what to learn from" in told(*teacher)
    assert "no split 'val'" in told("--data", images, *teacher, "--set", "data.0.split=val")
    other = ("--teacher", networks / "teacher", "--student", networks / "other")
    assert "Round, Flat, its teacher Round, Long" in told("--data", images, *other)
    alone = ("--teacher", networks / "encoder", "--student", "cellvit-nano")
    assert "no maps to learn from" in told("--data", images, *alone, "--set", "losses.found=1")
    assert "cellvit-nanu" in told("--data", images, *teacher[:2], "--student", "cellvit-nanu")
    odd = told("--data", images, *teacher, "--set", "recipe.tile=40")
    assert "multiples of the patch size" in odd
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", [["--data", "x"], ["--teacher", "x"], ["--student", "x"], ["--no-maps"]]
)
def test_a_config_has_all_that_it_takes(call, words):
    code, _, errors = call("distil", "--config", "x.json", *words)
    assert code == 2
    assert "--config has data, teacher, student and losses already" in errors


def test_types_are_left_out_where_they_differ(images, networks):
    values = config(images, networks, "other").changed(["losses.types=0"])
    with pytest.raises(InputError, match=r"losses\.types=0"):
        distil_run.prepare(config(images, networks, "other"))
    job = distil_run.prepare(values)
    assert [one.name for one in job.network.card.classes[1:]] == ["Round", "Flat"]
