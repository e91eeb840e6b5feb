"""A run's config: plain values there and back, and sentences for what does not fit."""

import json

import pytest

pytest.importorskip("grain")

from cellvit_jax.errors import InputError, OutputError
from cellvit_jax.training import config as configs
from cellvit_jax.training.config import RECIPES, RunConfig, Source
from cellvit_jax.training.plain import differences


def of(recipe: str = "finetune") -> RunConfig:
    return RunConfig(data=(Source(path="here"),), model="cellvit-tiny", recipe=RECIPES[recipe]())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_config_comes_back_from_its_file(recipe, tmp_path):
    configs.keep(of(recipe), tmp_path / "run")
    assert configs.read(tmp_path / "run" / "config.json", RunConfig) == of(recipe)


def test_values_are_set_by_their_paths():
    changed = of().changed(
        ["recipe.schedule.peak=1", "data.0.share=0.5", "recipe.ema_decay=null", "model=other"]
    )
    assert changed.recipe.schedule.peak == 1.0
    assert isinstance(changed.recipe.schedule.peak, float)
    assert changed.data[0].share == 0.5
    assert changed.recipe.ema_decay is None
    assert changed.model == "other"


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("recipe.schedule.paek=1", "there is no recipe.schedule.paek: did you mean peak?"),
        ("recipe.paek=1", "there is no recipe.paek: did you mean recipe.schedule.peak?"),
        ("epoch=1", "there is no epoch: did you mean recipe.epochs?"),
        ("recipe.batch_size=2.5", "recipe.batch_size must be a whole number, not 2.5"),
        ("recipe.batch_size=true", "recipe.batch_size must be a whole number, not true"),
        ("recipe.schedule.peak=fast", 'recipe.schedule.peak must be a number, not "fast"'),
        ("recipe.dtype=float8", "recipe.dtype must be float32 or bfloat16"),
        ("recipe.betas=[0.9]", "recipe.betas must be a list of 2 values"),
        ("data.3.share=1", "there is no data.3.share"),
        ("recipe=1", "recipe must be a group of values"),
        ("recipe.remat", "expected NAME=VALUE"),
        ("recipe.seed.deep=1", "there is no recipe.seed.deep"),
    ],
)
def test_what_does_not_fit_is_one_sentence(assignment, sentence):
    with pytest.raises(InputError) as caught:
        of().changed([assignment])
    assert sentence in str(caught.value)


def test_unknown_names_in_a_file_suggest_the_nearest(tmp_path):
    values = of().to_dict()
    values["recipe"]["epoch"] = values["recipe"].pop("epochs")
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"there is no recipe\.epoch: did you mean epochs\?"):
        configs.read(tmp_path / "config.json", RunConfig)
    (tmp_path / "config.json").write_text("import os")
    with pytest.raises(InputError, match="not a readable config"):
        configs.read(tmp_path / "config.json", RunConfig)


def test_another_config_in_the_same_folder_is_refused_with_its_differences(tmp_path):
    run = tmp_path / "run"
    configs.keep(of(), run)
    configs.keep(of(), run)
    with pytest.raises(OutputError, match=r"recipe\.seed: 0, now 1"):
        configs.keep(of().changed(["recipe.seed=1"]), run)


def test_a_folder_with_other_things_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("…")
    with pytest.raises(OutputError, match="no training run"):
        configs.keep(of(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_differences_name_both_values():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == ["a.b: 1, now 3"]
