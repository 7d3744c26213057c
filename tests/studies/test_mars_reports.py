"""The studies of reports 000 and 001: every row of their tables stands there, and can be trained as it stands."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segwright.errors import DataError
from segwright.files import write_arrays, write_json
from segwright.losses import build_loss
from segwright.models import ModelSpec, build_model, train_only
from segwright.recipe import Recipe, make_recipe, stages_of
from segwright.studies.grid import Study, Trial, read_study, trials
from segwright.studies.needs import require_needs
from segwright.training.class_labels import with_labels
from segwright.training.preparation import prepare
from segwright.types import ClassSet

STUDIES = Path(__file__).parents[2] / "studies"
FILES = [f"{name}/{file}" for name in ("000-mars", "001-mars-imbalance") for file in ("study.yaml", "standin.yaml")]
CLASSES = ("background", "soil", "bedrock", "sand", "big_rock")
TABLE_1 = {
    "U-Net with outliers": (0.4745, 0.4819),
    "U-Net + sparse CE": (0.4645, 0.4470),
    "U-Net + combined": (0.4646, 0.4595),
    "U-Net + Jaccard": (0.5885, 0.5896),
    "ResUNet + focal + Dice": (0.4400, 0.4700),
    "ResUNet + Dice + Jaccard": (0.6400, 0.6230),
    "ResUNet + Jaccard": (0.6443, 0.6100),
    "dual U-Net + CE": (0.4503, 0.4140),
    "dual U-Net + weighted": (0.4316, 0.4078),
    "dual U-Net + combined": (0.4394, None),
}
BALANCING: dict[str, dict[str, Any]] = {
    "none": {},
    "copies": {"copies": 500},
    "cut and mix": {"pasted": 0.5},
    "inverse": {"weights": "inverse"},
    "roots": {"weights": "sqrt_inverse"},
}
LOSSES = {
    "CE": "ce", "Dice": "dice", "Dice + 2 CE": "dice + 2*ce", "focal": "focal", "CE + gradient": "ce + gradient",
    "boundary CE": "boundary_ce",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGWRIGHT_DATA", raising=False)


def first_seed(study: Study) -> dict[str, Trial]:
    return {trial.row: trial for trial in trials(replace(study, seeds=(0,)))}


@cache
def read(file: str) -> tuple[Study, dict[str, Trial]]:
    study = read_study(STUDIES / file)
    return study, first_seed(study)


def rows_of(file: str) -> dict[str, Trial]:
    return read(file)[1]


def parts_of(recipe: Recipe) -> list[Recipe]:
    """What is trained one after the other."""
    return [*(stage for _, stage in stages_of(recipe)), recipe]


@pytest.mark.parametrize("file", FILES)
def test_no_path_holds_on_one_machine_alone(file):
    def texts(tree: Any) -> list[str]:
        if isinstance(tree, dict):
            return [text for key, value in tree.items() for text in (key, *texts(value))]
        return [text for one in tree for text in texts(one)] if isinstance(tree, list) else [str(tree)]

    told = texts(yaml.safe_load((STUDIES / file).read_text()))
    assert len(told) > 10
    assert not [text for text in told if re.match(r"[/~\\]|[A-Za-z]:\\", text)]


@pytest.mark.parametrize("file", FILES)
def test_rows_are_scored_alike_and_have_the_same_budget(file):
    study, rows = read(file)
    seeds = range(6 if file == "000-mars/standin.yaml" else 3)
    assert (study.definition, study.seeds) == ("keras-mars", tuple(seeds))
    for name, trial in rows.items():
        recipe = make_recipe(trial.recipe)
        spent = [(part.training.epochs, part.training.minutes) for part in parts_of(recipe)]
        if "standin" in file:
            minutes = 3 if "000" in file else 1.5
            assert sum(one or 99 for _, one in spent) == pytest.approx(minutes), name
            assert {epochs for epochs, _ in spent} == {None}, name
        else:
            assert (sum(epochs or 99 for epochs, _ in spent), {minutes for _, minutes in spent}) == (60, {None}), name
        assert recipe.classes.ignore_in_score == ("background",), name
        assert recipe.data.drop_noise == (name != "U-Net with outliers")
        assert recipe.model.weights == "none", "no pretrained encoder is allowed"


@pytest.mark.parametrize("name", ["000-mars", "001-mars-imbalance"])
def test_the_stand_in_has_the_rows_of_the_real_file(name):
    real, standin = (rows_of(f"{name}/{file}.yaml") for file in ("study", "standin"))
    assert list(real) == list(standin)
    smaller = {"plateau": "schedule", "U-Net on VGG16": "model"}
    for row, trial in real.items():
        apart = {"data", "training", "augment", "stages", smaller.get(row)}
        one, other = (
            {key: value for key, value in of.recipe.items() if key not in apart} for of in (trial, standin[row])
        )
        assert one == other, row
        assert (trial.figure, trial.copies) == (standin[row].figure, standin[row].copies)
        assert [stage["name"] for stage in trial.recipe["stages"]] == [
            stage["name"] for stage in standin[row].recipe["stages"]
        ]


def test_report_000_has_every_row_of_its_table():
    rows = rows_of("000-mars/study.yaml")
    found = {row: (trial.figure["val_miou"], trial.figure.get("test")) for row, trial in rows.items() if trial.figure}
    assert found == TABLE_1
    best = rows["ResUNet + Dice + Jaccard"].recipe, rows["ResUNet + Dice + Jaccard, no background"].recipe
    assert [key for key in best[0] if best[0][key] != best[1][key]] == ["classes"]


def test_each_ingredient_of_ours_is_there_alone_and_left_out_once():
    rows = rows_of("000-mars/study.yaml")
    base, ours = (rows[name].recipe for name in ("ResUNet + Dice + Jaccard, no background", "ours"))
    changed = {key for key in ours if ours[key] != base[key]}
    branches = {
        "plain blocks": "model",
        "EMA": "training",
        "twice the learning rate": "optimizer",
        "rare images": "sampling",
        "copy-paste": "mix",
    }
    assert changed == set(branches.values())
    for name, branch in branches.items():
        alone, without = rows[f"+ {name}"].recipe, rows[f"ours without {name}"].recipe
        assert {key for key in alone if alone[key] != base[key]} == {branch}
        assert alone[branch] == ours[branch]
        assert {key for key in without if without[key] != ours[key]} == {branch}


def test_report_001_has_every_balancing_with_every_loss():
    rows = rows_of("001-mars-imbalance/study.yaml")
    for (balancing, asked), (loss, formula) in product(BALANCING.items(), LOSSES.items()):
        trial = rows[f"{balancing}, {loss}"]
        recipe = make_recipe(trial.recipe)
        copies = 0 if trial.copies is None else trial.copies.count
        found = (recipe.loss.formula, recipe.loss.class_weights, copies, recipe.mix.copy_paste)
        assert found == (formula, asked.get("weights", "none"), asked.get("copies", 0), asked.get("pasted", 0))
        assert recipe.classes.ignore_in_loss == recipe.classes.never_predict == ("background",)
    models = {trial.recipe["model"]["name"] for trial in rows.values()}
    assert models == {
        "unet", "multihead", "unet_vgg16", "dual", "transunet", "cascade", "refined", "two_step", "one_per_class",
    }  # fmt: skip
    assert {trial.recipe["schedule"]["name"] for trial in rows.values()} == {
        "cosine", "exponential", "plateau", "constant",
    }  # fmt: skip
    skips = {trial.recipe["model"]["arguments"].get("skips", "concatenate") for trial in rows.values()}
    assert skips == {"concatenate", "add", "residual", "se", "none"}


@pytest.mark.parametrize("file", FILES[::2])
def test_every_network_loss_head_and_part_that_is_named_is_there(file):
    classes = ClassSet(CLASSES, colors=tuple((k, k, k) for k in range(len(CLASSES))))
    recipes = [make_recipe(trial.recipe) for trial in rows_of(file).values()]
    for recipe in {json.dumps([one.model.model_dump(), one.stages], default=str): one for one in recipes}.values():
        asked = recipe.model
        told = with_labels(asked.name, asked.arguments, classes)
        with torch.device("meta"):
            model = build_model(ModelSpec(asked.name, 1, len(CLASSES), encoder=asked.encoder, arguments=told))
        heads = {head.name for head in model.heads}
        for part in parts_of(recipe):
            assert set(part.loss.heads) <= heads
            if part.training.trainable:
                train_only(model, part.training.trainable)
    for formula in {part.loss.formula for recipe in recipes for part in parts_of(recipe)}:
        build_loss(formula, num_classes=len(CLASSES))


def mars_like(file: Path) -> None:
    """A file with the arrays of the homework: 40 pictures and two 'aliens' of noise."""
    rng = np.random.default_rng(0)
    columns = np.arange(128) // 26
    stack = np.empty((45, 2, 64, 128), dtype=np.uint8)
    for i in range(45):
        stack[i, 1] = np.roll(columns, rng.integers(128))
        stack[i, 0] = 40 * stack[i, 1] + rng.integers(0, 12, (64, 128))
    stack[40:42, 0] = rng.integers(0, 255, (2, 64, 128))
    write_arrays(file, {"training_set": stack[:42], "test_set": stack[42:, 0]})


@pytest.mark.parametrize("file", FILES)
def test_it_says_what_is_missing_and_takes_what_is_there(file, tmp_path, monkeypatch):
    shutil.copytree(STUDIES / Path(file).parent, tmp_path / "deep" / "studies" / Path(file).parent)
    copied = tmp_path / "deep" / "studies" / file
    study = read_study(copied)
    with pytest.raises(
        DataError, match=r"mars_\w+.npz: is missing: the .*Mars homework file.* (put it beside|Set SEGWRIGHT_DATA)"
    ):
        require_needs(study.needs, study.folder)
    data = tmp_path / "data"
    for need in study.needs:
        place = data / (need.in_data or need.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix == ".npz":
            mars_like(place)
        else:
            write_json(place, {"train": list(range(30)), "val": list(range(30, 42))})
    monkeypatch.setenv("SEGWRIGHT_DATA", str(data))
    require_needs(study.needs, study.folder)
    rows = first_seed(study)
    for trial in rows.values():
        paths = (
            trial.recipe["data"]["path"],
            trial.recipe["data"]["split"]["file"],
            trial.recipe["augment"]["match_to"],
        )
        assert all(Path(path).is_file() for path in paths if path is not None), trial.row
    images = prepare(make_recipe(next(reversed(rows.values())).recipe), progress=False)
    assert (images.classes.names, sorted(images.dropped)) == (CLASSES, ["00040", "00041"])
    sides = [len(images.indices(side)) for side in ("train", "val", "test")]
    assert sides == ([30, 10, 0] if "standin" in file else [32, 8, 3])
