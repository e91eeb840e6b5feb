"""The command `cellvit-jax evaluate`, on data in their formats on the disk."""

import json
import re
from concurrent.futures import ProcessPoolExecutor
from importlib import util

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cellvit_jax import checkpoint, metrics
from cellvit_jax.card import PANNUKE_CLASSES, PANNUKE_TISSUES, ModelCard, cell_classes
from cellvit_jax.data import open_dataset, open_splits
from cellvit_jax.data.layouts import consep, monusac
from cellvit_jax.evaluation import annotated, report
from cellvit_jax.evaluation.annotated import validate
from cellvit_jax.evaluation.jobs import Maps, resolve
from cellvit_jax.evaluation.tta import EightViews
from cellvit_jax.inference.predictor import normalised
from tests.networks import FOUR, save_small
from tests.training_data import makers

NAMES = {
    "pannuke": PANNUKE_CLASSES,
    "monusac": cell_classes(*monusac.CLASSES),
    "consep": cell_classes(*consep.CLASSES),
}
# what the models in turn are tested on; MoNuSAC's data here are one part without a name of its own
TESTED = {
    "pannuke": ["PanNuke fold3", "PanNuke fold3", "PanNuke fold1"],
    "monusac": ["MoNuSAC all"],
    "consep": ["CoNSeP test"],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, classes in NAMES.items():
        tissues = PANNUKE_TISSUES if name == "pannuke" else ()
        card = ModelCard(classes, tissues=tissues, tile=64)
        sizes = {"num_classes": len(classes), "num_tissues": len(tissues)}
        save_small(root / name, card, **sizes, **FOUR)  # eight views differ by more than a little
    return root


def stored(layout, root):
    """Data in a layout, as it is published."""
    makers.made(layout, root / "data", height=64, width=64)
    return root / "data"


@pytest.mark.parametrize("protocol", list(TESTED))
def test_a_protocol_is_one_command(call, models, tmp_path, protocol):
    data = stored(protocol, tmp_path)
    options = ["--workers", 0, "--quiet", "--protocol", protocol, "--data", data]
    shown = [models / protocol] * len(TESTED[protocol])
    code, text, err = call("evaluate", "--model", *shown, *options)
    assert code == 0, err
    assert text.startswith(f"# {protocol}")
    titles = re.findall("^## (.*)$", text, re.MULTILINE)
    assert titles == [f"{models / protocol} on {part}" for part in TESTED[protocol]]


def test_a_protocol_of_folds_needs_a_model_for_each(call, models, tmp_path):
    data = stored("pannuke", tmp_path)
    options = ["--protocol", "pannuke", "--data", data]
    code, _, err = call("evaluate", "--model", models / "pannuke", *options)
    assert code == 2
    assert "3 splits need as many models" in err


def test_a_report_is_written_with_its_figures(call, models, tmp_path):
    pytest.importorskip("matplotlib")
    data, out = stored("consep", tmp_path), tmp_path / "report"
    options = ["--data", data, "--model", models / "consep", "--out", out, "--workers", 0]
    options += ["--split", next(iter(open_splits(data)))]
    code, text, _ = call("evaluate", *options)
    assert code == 0
    assert {p.name for p in out.iterdir()} == {
        "report.md",
        "report.json",
        "classes.png",
        "worst.png",
    }
    assert (out / "report.md").read_text() == text.removesuffix("\n")
    values = json.loads((out / "report.json").read_text())["evaluations"][0]
    assert values["figures"]["image_mean"].keys() == values["intervals"]["image_mean"].keys()
    for name in ("classes.png", "worst.png"):
        with Image.open(out / name) as picture:
            assert picture.size[0] > 200
    code, _, err = call("evaluate", *options)
    assert code == 2
    assert "--overwrite" in err


def test_the_command_prints_by_a_worker_process_what_the_function_gives_by_threads(
    call, models, tmp_path, monkeypatch
):
    data, started = stored("consep", tmp_path), []

    class Pool(ProcessPoolExecutor):
        def __init__(self, workers, *args):
            started.append(workers)
            super().__init__(workers, *args)

    monkeypatch.setattr(annotated, "ProcessPoolExecutor", Pool)
    evaluation = validate(checkpoint.load(models / "consep"), open_dataset(data, "test"), workers=0)
    assert not started
    options = ["--data", data, "--split", "test", "--quiet"]
    code, text, err = call("evaluate", "--model", models / "consep", *options)
    assert code == 0, err
    assert started == [1]  # by default one for every core but one, but no more than fields
    assert evaluation.image_mean["bpq"] > 0
    assert report.to_markdown(evaluation) in text


def test_eight_views_are_averaged_where_they_are_asked_for(call, models, tmp_path):
    data = stored("consep", tmp_path)
    sample, model = open_dataset(data, "test").samples[0], checkpoint.load(models / "consep")
    maps = EightViews(model)(normalised(jnp.asarray(sample.image[None]), model.card))
    binary, types = (maps[f"nuclei_{name}_map"][0].argmax(-1) for name in ("binary", "type"))
    found = resolve(Maps(*map(np.asarray, (binary, maps["hv_map"][0], types))))
    expected = metrics.dice(sample.instances, found.instances)
    options = ["--data", data, "--split", "test", "--workers", 0, "--quiet"]
    dice = {}
    for flags in ((), ("--tta",)):
        code, text, err = call("evaluate", "--model", models / "consep", *options, *flags)
        assert code == 0, err
        dice[flags] = float(re.search(r"\| Dice \| ([\d.]+)", text)[1])
        assert ("mean of eight views" in text) == bool(flags)
    assert dice[("--tta",)] == pytest.approx(expected, abs=0.003)
    assert abs(dice[()] - expected) > 0.01


def test_figures_need_an_extra_which_is_named_before_any_work(call, models, tmp_path, monkeypatch):
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda n, *a: None if n == "matplotlib" else find(n, *a))
    code, _, err = call("evaluate", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert code == 2
    assert "cellvit-jax[evaluate]" in err


def test_predictions_and_models_are_not_given_together(call, models, tmp_path):
    options = ["--predictions", tmp_path, "--model", models / "consep"]
    code, _, err = call("evaluate", "--data", tmp_path, *options)
    assert code == 2
    assert "choose one" in err


def test_predictions_are_measured_without_a_model(call, tmp_path):
    sample = makers.made("plain", tmp_path / "data")
    makers.plain(tmp_path / "found", sample)
    options = ["--predictions", tmp_path / "found", "--workers", 0]
    code, text, err = call("evaluate", "--data", tmp_path / "data", *options)
    assert code == 0, err
    assert "| bPQ | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |" in text
    assert "| tumour |" in text
