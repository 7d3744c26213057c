"""Study files: rows, trials, their names, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from segwright.errors import RecipeError
from segwright.recipe import make_recipe
from segwright.studies.grid import Study, choose, digest_of, draw, read_study, recipe_of_copies, slug, trials
from segwright.studies.runner import recipe_in
from segwright.studies.state import begin_study
from segwright.studies.study_file import Copies, RandomRows

BASE: dict[str, Any] = {"data": {"path": "photos"}, "training": {"epochs": 2}}


def study(folder: Path, **keys: Any) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "losses.yaml").write_text(yaml.safe_dump({"base": BASE, **keys}))
    return read_study(folder / "losses.yaml")


def names(of: Study) -> list[str]:
    return [trial.name for trial in trials(of)]


def test_rows_are_the_list_times_the_grid_and_what_is_drawn(tmp_path):
    found = study(
        tmp_path,
        list=[{"name": "plain"}, {"loss.formula": "dice", "figure": {"miou": 0.5}, "note": "theirs"}],
        grid={"optimizer.lr": [1e-3, "3e-3"]},
        random={"trials": 2, "keys": {"training.ema": {"uniform": [0.9, 0.99]}, "loss.formula": ["ce"]}},
        seeds=[4, 5],
    )
    assert [row.name for row in found.rows][:4] == [
        "plain, optimizer.lr=0.001",
        "plain, optimizer.lr=3e-3",
        "loss.formula=dice, optimizer.lr=0.001",
        "loss.formula=dice, optimizer.lr=3e-3",
    ]
    assert len(found.rows) == 6
    every = trials(found)
    assert [trial.seed for trial in every] == [4] * 6 + [5] * 6
    assert every[1].recipe["optimizer"]["lr"] == 3e-3
    assert every[2].figure == {"miou": 0.5}
    assert every[0].recipe["data"]["path"] == str(tmp_path / "photos")
    assert len(set(names(found))) == 12
    assert [t.row for t in choose(every, rows=["plain, optimizer.lr=0.001"], seeds=[5])] == [every[0].row]
    with pytest.raises(RecipeError, match="Did you mean 'plain, optimizer"):
        choose(every, rows=["plain, optimizer.lr=0.01"])
    with pytest.raises(RecipeError, match="There are: 4, 5"):
        choose(every, seeds=[6])


def test_a_study_without_rows_is_its_base(tmp_path):
    found = study(tmp_path)
    assert [(trial.row, trial.seed, trial.fold) for trial in trials(found)] == [("base", 0, None)]
    assert found.name == "losses"


def test_folds_take_the_place_of_the_split(tmp_path):
    every = trials(study(tmp_path, folds=3, seeds=[1]))
    assert [trial.fold for trial in every] == [0, 1, 2]
    assert [trial.recipe["data"]["split"]["fold"] for trial in every] == [0, 1, 2]
    assert {trial.recipe["data"]["split"]["kind"] for trial in every} == {"kfold"}
    assert [trial.name.split("-")[:3] for trial in every] == [["base", "s1", f"f{fold}"] for fold in range(3)]


def test_the_digest_is_the_same_everywhere():
    """On other machines, Pythons and days too: were it another, all studies of old would be trained again."""
    assert digest_of(make_recipe({"loss": {"formula": "dice"}, "optimizer": {"lr": 0.002}})) == "a1d388dc"


@given(
    epochs=st.integers(1, 500),
    lr=st.floats(1e-6, 1.0),
    formula=st.sampled_from(["ce", "dice"]),
    same=st.sampled_from([("data", "resident", "map"), ("training", "devices", 2), ("training", "tensorboard", True)]),
)
def test_the_digest_tells_results_apart_and_nothing_else(epochs, lr, formula, same):
    tree = {"training": {"epochs": epochs}, "optimizer": {"lr": lr}, "loss": {"formula": formula}}
    own = digest_of(make_recipe(tree))
    assert own == digest_of(make_recipe(dict(reversed(tree.items()))))
    branch, key, value = same
    assert own == digest_of(make_recipe({**tree, branch: {**tree.get(branch, {}), key: value}}))
    assert own != digest_of(make_recipe({**tree, "training": {"epochs": epochs + 1}}))
    assert own != digest_of(make_recipe({**tree, "training": {"epochs": epochs, "seed": 1}}))


def test_names_hold_wherever_the_study_lies_and_in_its_folder(tmp_path):
    rows = [{"name": "a", "data.split.file": "split.json"}, {"name": "b", "source": "other"}]
    first, second = study(tmp_path / "one", list=rows), study(tmp_path / "two", list=rows)
    assert names(first) == names(second)
    begin_study(first, tmp_path / "out")
    again = read_study(tmp_path / "out" / "study.yaml")
    assert (names(again), again.name, again.file) == (names(first), "losses", first.file)
    assert trials(again)[0].recipe["data"]["split"]["file"] == str(tmp_path / "one" / "split.json")
    assert trials(again)[1].recipe["data"]["path"] == str(tmp_path / "one" / "other")


def test_a_base_may_be_a_recipe_elsewhere(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.yaml").write_text(yaml.safe_dump(BASE))
    found = study(tmp_path / "studies", base="../recipes/base.yaml")
    assert trials(found)[0].recipe["data"]["path"] == str(tmp_path / "recipes" / "photos")
    assert found.base["data"] == {"path": "../recipes/photos"}


def test_branches_are_relative_to_the_file_that_names_them(tmp_path):
    (tmp_path / "recipes").mkdir()
    base = {**BASE, "model": {"name": "dual", "branches": ["runs/a", "runs/b"]}}
    (tmp_path / "recipes" / "base.yaml").write_text(yaml.safe_dump(base))
    rows = [{"name": "base"}, {"name": "other", "model.branches": ["runs/c", "/else/d"]}]
    found = study(tmp_path / "studies", base="../recipes/base.yaml", list=rows)
    branches = [tuple(trial.recipe["model"]["branches"]) for trial in trials(found)]
    in_recipes, in_studies = tmp_path / "recipes" / "runs", tmp_path / "studies" / "runs"
    assert branches == [(str(in_recipes / "a"), str(in_recipes / "b")), (str(in_studies / "c"), "/else/d")]
    assert names(found) == names(study(tmp_path / "studies", base="../recipes/base.yaml", list=rows))


def test_copies_are_those_of_their_images_and_no_more(tmp_path):
    rows = [
        {"name": "plain"},
        {"name": "more", "copies": {"count": 9, "only_classes": ["rock"]}},
        {"name": "more, slower", "copies": {"count": 9, "only_classes": ["rock"]}, "optimizer.lr": 1e-4},
    ]
    every = trials(study(tmp_path, list=rows, seeds=[0, 1]))
    by_row = {(trial.row, trial.seed): trial for trial in every}
    assert by_row["plain", 0].copies is None
    assert by_row["more", 0].copies_name == by_row["more", 1].copies_name
    assert by_row["more", 0].name[-8:] != by_row["plain", 0].name[-8:]
    of_folds = trials(study(tmp_path, list=rows, folds=2))
    assert len({trial.copies_name for trial in of_folds if trial.row == "more"}) == 2


def test_copies_are_the_same_whatever_the_training_does_to_its_images(tmp_path):
    copies = {"count": 9, "overrides": {"augment.rotate_degrees": 30}}
    rows = [
        {"name": "usual", "copies": copies},
        {"name": "turned", "copies": copies, "augment.quarter_turns": True},
        {"name": "strong", "copies": copies, "augment.preset": "strong"},
        {"name": "other", "copies": {"count": 9, "overrides": {"augment.rotate_degrees": 40}}},
    ]
    usual, turned, strong, other = every = trials(study(tmp_path, list=rows))
    assert len({str(recipe_of_copies(trial.recipe)) for trial in every}) == 1
    assert len({trial.name[-8:] for trial in every}) == 4
    assert usual.copies_name[-8:] != other.copies_name[-8:]
    # Where the training's own augmentation once changed the copies too, they are made anew; elsewhere names stay.
    assert turned.copies_name[-8:] == strong.copies_name[-8:] != usual.copies_name[-8:]
    told = {"copies": Copies.model_validate(copies).model_dump(mode="json")}
    assert usual.name[-8:] == digest_of(make_recipe(BASE), more=told)
    assert turned.name[-8:] != digest_of(make_recipe({**BASE, "augment": {"quarter_turns": True}}), more=told)


def test_a_refit_with_copies_has_those_of_its_training_images(tmp_path):
    row = {"name": "all", "copies": {"count": 9}, "data.split.refit": "runs/first", "training.keep": "last"}
    (trial,) = trials(study(tmp_path, list=[row]))
    assert make_recipe(recipe_of_copies(trial.recipe)).data.split.refit is None
    assert make_recipe(recipe_in(trial, tmp_path / "out")).data.split.refit == "runs/first"


def test_names_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    here = tmp_path / "here"
    for name in ("pictures", "drawn", "mine.pth", "a.json", "b.json"):
        (here / name).mkdir(parents=True)
    monkeypatch.chdir(here)
    found = study(
        tmp_path / "studies",
        list=[{"name": "own", "source": "pictures", "figure": {"miou": 0.5}}, {"copies": {"count": 9}, "note": "two"}],
        grid={"data.split.file": ["a.json", "b.json"]},
        random={"trials": 2, "keys": {"data.path": ["drawn"], "optimizer.lr": {"log": [1e-4, 1e-2]}}},
        always={"model.weights": "mine.pth"},
        baseline="own, data.split.file=a.json",
        needs=[{"path": "pictures"}],
    )
    begin_study(found, tmp_path / "out")
    before = trials(found)
    assert {trial.recipe["model"]["weights"] for trial in before} == {str(here / "mine.pth")}
    monkeypatch.chdir(tmp_path)
    again = read_study(tmp_path / "out" / "study.yaml")
    assert trials(again) == before
    assert (again.file, again.rows, again.needs) == (found.file, found.rows, found.needs)


def test_drawn_rows_stay_when_more_are_drawn():
    keys = {"optimizer.lr": {"log": [1e-4, 1e-2]}, "n": {"int": [1, 5]}, "loss.formula": ["ce", "dice"]}
    few, more = (RandomRows.model_validate({"trials": n, "keys": keys}) for n in (5, 50))
    drawn = [draw(more, number) for number in range(50)]
    assert [draw(few, number) for number in range(5)] == drawn[:5]
    assert all(1e-4 <= one["optimizer.lr"] <= 1e-2 for one in drawn)
    assert {one["n"] for one in drawn} == {1, 2, 3, 4, 5}
    assert {one["loss.formula"] for one in drawn} == {"ce", "dice"}
    # Half of the rates lie below the middle of their logarithms.
    assert 12 < sum(one["optimizer.lr"] < 1e-3 for one in drawn) < 38
    fewer_keys = RandomRows.model_validate({"trials": 5, "keys": {"n": {"int": [1, 5]}}})
    assert [draw(fewer_keys, number)["n"] for number in range(5)] == [one["n"] for one in drawn[:5]]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"gird": {}}, "unknown key 'gird'. Did you mean 'grid'"),
        ({"list": [{"name": "a", "loss.formla": "ce"}]}, "row 'a': unknown key 'loss.formla'. Did you mean 'formula'"),
        ({"list": [{"name": "a", "optimizer.lr": -1}]}, "row 'a': 'optimizer.lr' = -1"),
        ({"list": [{"name": "a"}, {"name": "a", "loss.formula": "ce"}]}, "two rows are called 'a'"),
        ({"list": [{"name": "a"}], "baseline": "b"}, "'baseline' = 'b' is no row. There are: a"),
        ({"list": [{"name": "a", "copies": {"count": 3, "only_class": "rock"}}]}, "Did you mean 'only_classes'"),
        ({"list": [{"name": "a", "copies": {"count": 0}}]}, "row 'a': 'copies.count' = 0"),
        ({"list": [{"name": 3}]}, "a row's 'name' is a text"),
        ({"grid": {"optimizer.lr": []}}, "'grid.optimizer.lr'"),
        ({"random": {"keys": {"optimizer.lr": {"lgo": [1, 2]}}}}, "random.keys.optimizer.lr"),
        ({"random": {"keys": {"optimizer.lr": {"log": [0, 2]}}}}, "lies above 0"),
        ({"random": {"keys": {"optimizer.lr": {"log": [3, 2]}}}}, "in this order"),
        ({"definition": "best"}, "'definition' = 'best'"),
        ({"folds": 1}, "'folds' = 1"),
        ({"base": {"modle": {}}}, "unknown key 'modle'"),
        ({"seeds": []}, "'seeds'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, keys, words):
    with pytest.raises(RecipeError) as error:
        study(tmp_path, **keys)
    assert words in str(error.value)
    assert "losses.yaml" in str(error.value)


def test_a_branch_that_undoes_a_key_before_it_is_refused(tmp_path):
    file = tmp_path / "losses.yaml"
    file.write_text("base: {}\nlist:\n  - {name: a, loss.formula: ce, loss: {class_weights: inverse}}\n")
    with pytest.raises(RecipeError, match=r"row 'a': 'loss' as a whole would undo 'loss.formula'.*one by one"):
        read_study(file)
    file.write_text("base: {}\nlist:\n  - {name: a, loss: {class_weights: inverse}, loss.formula: ce}\n")
    assert len(read_study(file).rows) == 1


def test_no_base_and_no_mapping(tmp_path):
    (tmp_path / "empty.yaml").write_text("seeds: [1]")
    with pytest.raises(RecipeError, match="has no 'base'"):
        read_study(tmp_path / "empty.yaml")
    (tmp_path / "empty.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match="Start it with 'base:'"):
        read_study(tmp_path / "empty.yaml")


@given(st.text())
def test_slugs_are_names_of_folders(name):
    assert slug(name)
    assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not slug(name).startswith("-")
    assert len(slug(name)) <= 60
