"""Study files that stand on others, keys that hold in every row, and files that must be there first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from segwright import verbs
from segwright.cli import main
from segwright.errors import DataError, RecipeError
from segwright.studies.grid import read_study, trials
from segwright.studies.needs import require_needs
from segwright.studies.space import searched
from segwright.studies.state import begin_study

NEED = {"path": "mars.npz", "what": "the homework file", "how": "ask your teacher for it and put it here."}
PUBLISHED: dict[str, Any] = {
    "question": "Which loss?",
    "base": {
        "data": {"path": "mars.npz", "split": {"val": 0.2}},
        "loss": {"formula": "ce"},
        "training": {"epochs": 90},
    },
    "list": [
        {"name": "ce", "figure": {"miou": 0.45}},
        {"name": "dice", "loss.formula": "dice", "training.epochs": 200},
        {"name": "timed", "training": {"minutes": 60}},
    ],
    "baseline": "ce",
    "needs": [NEED],
}


def write(file: Path, tree: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGWRIGHT_DATA", raising=False)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return write(tmp_path / "000-mars" / "study.yaml", PUBLISHED)


def test_a_stand_in_has_the_rows_of_the_other_and_its_own_data_and_budget(published):
    short = {"training.minutes": 5, "training.epochs": None}
    own = {"like": "study.yaml", "base": {"data": {"path": "in.npz"}}, "always": short, "needs": [], "seeds": [3]}
    found = read_study(write(published.parent / "standin.yaml", own))
    assert (found.name, found.question, found.baseline) == ("000-mars-standin", "Which loss?", "ce")
    every = trials(found)
    assert [trial.row for trial in every] == ["ce", "dice", "timed"]
    assert {(trial.recipe["training"]["minutes"], trial.recipe["training"]["epochs"]) for trial in every} == {(5, None)}
    assert {trial.recipe["data"]["path"] for trial in every} == {str(published.parent / "in.npz")}
    assert [trial.recipe["data"]["split"]["val"] for trial in every] == [0.2] * 3
    assert [trial.recipe["loss"]["formula"] for trial in every] == ["ce", "dice", "ce"]
    assert every[0].figure == {"miou": 0.45}
    assert {trial.name.split("-s3-")[0] for trial in every} == {"ce", "dice", "timed"}


def test_always_counts_as_if_the_row_said_it(published):
    short = {"training.minutes": 5, "training.epochs": None}
    first = read_study(write(published.parent / "a.yaml", {"like": "study.yaml", "always": short}))
    rows = [{**PUBLISHED["list"][0], **short}, {**PUBLISHED["list"][1], **short}, {"name": "timed", **short}]
    second = read_study(write(published.parent / "b.yaml", {"like": "study.yaml", "list": rows}))
    assert [trial.name for trial in trials(first)] == [trial.name for trial in trials(second)]
    assert [trial.name for trial in trials(first)] != [trial.name for trial in trials(read_study(published))]
    with pytest.raises(RecipeError, match=r"c.yaml: row 'ce' with 'always': unknown key 'training.minuts'"):
        read_study(write(published.parent / "c.yaml", {"like": "study.yaml", "always": {"training.minuts": 5}}))


def test_rows_of_the_other_file_may_be_different_or_left_out(published, tmp_path):
    own = {
        "like": "000-mars/study.yaml",
        "changes": {"dice": {"training.epochs": 9, "model.weights": "own.pth", "note": "short"}, "timed": None},
    }
    found = read_study(write(tmp_path / "other.yaml", own))
    assert [row.name for row in found.rows] == ["ce", "dice"]
    ce, dice = (trial.recipe for trial in trials(found))
    assert (ce["training"]["epochs"], ce["loss"]["formula"]) == (90, "ce")
    assert (dice["training"]["epochs"], dice["loss"]["formula"], found.rows[1].note) == (9, "dice", "short")
    assert dice["model"]["weights"] == str(tmp_path / "own.pth")
    assert trials(found)[0].recipe["data"]["path"] == str(published.parent / "mars.npz")
    again = {"like": "other.yaml", "changes": {"dice": {"training.epochs": 3}}}
    assert trials(read_study(write(tmp_path / "again.yaml", again)))[1].recipe["training"]["epochs"] == 3


def test_paths_are_those_of_the_file_that_names_them(tmp_path):
    write(tmp_path / "recipes" / "base.yaml", {"data": {"path": "street"}, "model": {"weights": "here.pth"}})
    liked = {
        "base": "../recipes/base.yaml",
        "list": [{"name": "own", "source": "photos"}, {"name": "same"}],
        "grid": {"data.split.file": ["a.json", "b.json"]},
        "always": {"model.weights": "mine.pth"},
        "random": {"trials": 1, "keys": {"data.path": ["drawn"]}},
        "needs": [{"path": "photos"}],
    }
    write(tmp_path / "one" / "losses.yaml", liked)
    middle = {"like": "../one/losses.yaml", "always": {"training.minutes": 1}}
    write(tmp_path / "two" / "middle.yaml", middle)
    own = {"like": "../../two/middle.yaml", "base": {"loss": {"formula": "dice"}}, "random": None}
    found = read_study(write(tmp_path / "deep" / "three" / "study.yaml", own))
    assert found.name == "three"
    every = trials(found)
    assert [trial.recipe["data"]["path"] for trial in every] == [
        *[str(tmp_path / "one" / "photos")] * 2, *[str(tmp_path / "recipes" / "street")] * 2,
    ]  # fmt: skip
    assert [Path(trial.recipe["data"]["split"]["file"]).name for trial in every] == ["a.json", "b.json"] * 2
    assert {Path(trial.recipe["data"]["split"]["file"]).parent for trial in every} == {tmp_path / "one"}
    assert {trial.recipe["model"]["weights"] for trial in every} == {str(tmp_path / "one" / "mine.pth")}
    assert {(t.recipe["training"]["minutes"], t.recipe["loss"]["formula"]) for t in every} == {(1, "dice")}
    assert [(need.path, need.in_data) for need in found.needs] == [("../../one/photos", "photos")]
    assert trials(read_study(tmp_path / "two" / "middle.yaml"))[-1].recipe["data"]["path"] == str(
        tmp_path / "one/drawn"
    )


def test_the_copy_in_the_study_folder_stands_alone(published, tmp_path):
    own = {"like": "study.yaml", "always": {"training.minutes": 5, "training.epochs": None}}
    first = read_study(write(published.parent / "standin.yaml", own))
    begin_study(first, tmp_path / "out")
    again = read_study(tmp_path / "out" / "study.yaml")
    assert "like" not in again.file
    assert (again.file, again.name, again.needs) == (first.file, "000-mars-standin", first.needs)
    assert trials(again) == trials(first)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"like": "loop.yaml"}, r"'like' = 'loop.yaml' leads in a circle. Let one of these files stand alone"),
        ({"like": "round.yaml"}, r"round.yaml: 'like' = 'loop.yaml' leads in a circle"),
        ({"like": "absent.yaml"}, r"absent.yaml: cannot be read"),
        ({"like": 3}, r"'like' = 3: must be the path of a study file"),
        ({"like": "bad.yaml"}, r"bad.yaml: unknown key 'sedes'. Did you mean 'seeds'"),
        ({"like": "study.yaml", "base": 3}, r"'base.*' = 3"),
        ({"like": "study.yaml", "base": {"loss": {"formla": "ce"}}}, r"loop.yaml: unknown key 'loss.formla'"),
        ({"like": "study.yaml", "list": [{"name": "x"}]}, r"'baseline' = 'ce' is no row"),
        ({"like": "study.yaml", "needs": [{"what": "it"}]}, r"has no 'needs.0.path'"),
        ({"like": "study.yaml", "needs": [{"path": "x", "hwo": "y"}]}, r"'needs.0.hwo'. Did you mean 'how'"),
        ({"always": {}}, r"has no 'base'. Name the recipe"),
        ({"like": "study.yaml", "changes": {"dise": {}}}, r"names 'dise', which is no row. Did you mean 'dice'"),
        ({"like": "study.yaml", "changes": {"dice": 3}}, r"must name rows and their keys. Write \{name of a row"),
        ({"like": "study.yaml", "changes": {"ce": None}}, r"'baseline' = 'ce' is no row"),
        ({"base": {}, "changes": {"ce": {}}}, r"'changes' = .*: these are of rows of the file that 'like' names"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(published, tree, message):
    write(published.parent / "round.yaml", {"like": "loop.yaml"})
    write(published.parent / "bad.yaml", {"base": {}, "sedes": [1]})
    with pytest.raises((RecipeError, DataError), match=message):
        read_study(write(published.parent / "loop.yaml", tree))


def test_nothing_begins_without_what_is_needed(published, tmp_path, monkeypatch, capsys):
    study = read_study(published)
    told = r"000-mars/mars.npz: is missing: the homework file. Ask your teacher for it and put it here.$"
    for begin in (verbs.study, verbs.plan_study, searched):
        with pytest.raises(DataError, match=told):
            begin(published)
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--dry-run"]):
        monkeypatch.setattr(sys, "argv", ["segwright", "study", str(published), *words])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "is missing: the homework file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["000-mars"]
    more = {"like": "study.yaml", "needs": [NEED, {"path": "split.json"}]}
    both = read_study(write(published.parent / "more.yaml", more))
    with pytest.raises(DataError, match=r"the homework file \(and so is split.json\)"):
        require_needs(both.needs, both.folder)
    (published.parent / "mars.npz").touch()
    require_needs(study.needs, study.folder)
    with pytest.raises(DataError, match=r"split.json: is missing, and the study needs it. Put it there"):
        require_needs(both.needs, both.folder)
    (published.parent / "split.json").touch()
    assert searched(published.parent / "more.yaml")[0] == "000-mars-more"


def test_the_nearest_of_what_is_needed_counts(published, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGWRIGHT_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "sets").mkdir(parents=True)
    (tmp_path / "data" / "street-2").mkdir()
    needs = [{"path": "camvid", "in_data": "sets"}, {"path": "camvid/street", "in_data": "street-2"}]
    for told in (needs, needs[::-1]):
        own = {"like": "study.yaml", "needs": told, "base": {"data": {"path": "camvid/street/train"}}}
        found = read_study(write(published.parent / "street.yaml", own))
        assert {t.recipe["data"]["path"] for t in trials(found)} == {str(tmp_path / "data" / "street-2" / "train")}


def test_what_is_needed_may_lie_in_the_folder_of_data(published, tmp_path, monkeypatch):
    data = tmp_path / "data"
    monkeypatch.setenv("SEGWRIGHT_DATA", str(data))
    own = {"like": "../000-mars/study.yaml", "needs": [{"path": "camvid", "in_data": "sets/camvid"}]}
    own["base"] = {"data": {"path": "camvid/train", "split": {"file": "split.json"}}}
    street = write(tmp_path / "street" / "study.yaml", own)
    away = write(tmp_path / "away" / "study.yaml", {"like": "../000-mars/study.yaml"})
    for file, place in ((published, "mars.npz"), (away, "mars.npz"), (street, "sets/camvid/train")):
        study = read_study(file)
        names = [trial.name for trial in trials(study)]
        with pytest.raises(DataError, match="is read too"):
            require_needs(study.needs, study.folder)
        (data / place).mkdir(parents=True, exist_ok=True)
        require_needs(study.needs, study.folder)
        assert {trial.recipe["data"]["path"] for trial in trials(study)} == {str(data / place)}
        assert [trial.name for trial in trials(study)] == names
        if place == "mars.npz":
            (data / place).rmdir()
    assert trials(read_study(street))[0].recipe["data"]["split"]["file"] == str(tmp_path / "street" / "split.json")
    (published.parent / "mars.npz").touch()
    (data / "mars.npz").mkdir()
    assert trials(read_study(published))[0].recipe["data"]["path"] == str(published.parent / "mars.npz")
