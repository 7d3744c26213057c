"""The index of a project's runs: found, filtered, sorted, tagged, moved away; the folders stay the truth."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.errors import RecipeError, RunError
from segwright.files import read_json, write_json, write_yaml
from segwright.recipe import make_recipe
from segwright.studies import index
from segwright.training.lock import locked

Maker = Callable[..., np.ndarray]


@pytest.fixture
def project(tmp_path: Path, write_run: Callable[..., None], confusion: Maker) -> Path:
    """Three runs: two in runs/, of which one was never scored, and one of a study."""
    for place, model, seed in (("runs/a", "fpn", 0), ("runs/b", "unet", 1), ("studies-runs/s/runs/c", "unet", 2)):
        run = tmp_path / place
        arguments = {"encoder": None} if model == "unet" else {}
        write_yaml(
            run / "recipe.yaml",
            make_recipe({"model": {"name": model, **arguments}, "training": {"seed": seed}}).as_dict(),
        )
        if not (run / "environment.json").exists():
            write_json(run / "environment.json", {})
        if place != "runs/b":
            write_run(run, confusion(0.7, seed=seed))
    write_json(tmp_path / "runs/a/scores/val.json", {"definitions": {"declared": {"miou": {"estimate": 0.4}}}})
    return tmp_path


def names(runs: list[index.Known]) -> list[str]:
    return [run.run.name for run in runs]


def test_all_runs_are_found_and_filtered(project: Path) -> None:
    runs = index.known_runs(project)
    assert names(runs) == ["a", "b", "c"]
    assert names(index.choose(runs, ["model=unet"])) == ["b", "c"]
    assert names(index.choose(runs, ["model.name=unet", "miou>0.5"])) == ["c"]
    assert names(index.choose(runs, ["miou<=0.4"])) == ["a"]
    assert names(index.choose(runs, ["state=half"])) == ["b"]
    assert names(index.choose(runs, ["encoder=none"])) == ["b", "c"]
    assert names(index.choose(runs, ["folder~STUDIES"])) == ["c"]
    assert names(index.choose(runs, ["seed!=1"])) == ["a", "c"]
    assert runs[2].value("parameters") == 108
    assert runs[2].value("minutes") == 2.0


def test_runs_are_sorted_and_the_unknown_come_last(project: Path) -> None:
    runs = index.known_runs(project)
    assert names(index.ordered(runs, "-miou")) == ["c", "a", "b"]
    assert names(index.ordered(runs, "miou")) == ["a", "c", "b"]
    assert names(index.ordered(runs, "-seed")) == ["c", "b", "a"]


def test_what_changed_on_disk_is_seen(project: Path) -> None:
    index.known_runs(project)
    write_json(project / "runs/a/scores/val.json", {"definitions": {"declared": {"miou": {"estimate": 0.9}}}})
    (project / "runs/b").rename(project / "runs/d")
    runs = index.known_runs(project)
    assert names(runs) == ["a", "d", "c"]
    assert runs[0].value("miou") == 0.9


def test_what_did_not_change_is_not_read_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = index.known_runs(project)
    monkeypatch.setattr(index, "_look", lambda run: pytest.fail(f"{run} was read again"))
    assert index.known_runs(project) == before


def test_tags_stand_in_the_runs_and_outlive_the_index(project: Path) -> None:
    runs = index.choose(index.known_runs(project), ["model=unet"])
    index.tag(runs, ["good", "night"])
    (project / index.INDEX_FILE).unlink()
    assert names(index.choose(index.known_runs(project), ["tag=night"])) == ["b", "c"]
    index.tag(index.known_runs(project), ["night"], take_away=True)
    assert read_json(project / "runs/b/tags.json") == {"tags": ["good"]}
    assert names(index.choose(index.known_runs(project), ["tag!=good"])) == ["a"]


def test_removed_runs_lie_in_the_trash_whole(project: Path) -> None:
    chosen = index.choose(index.known_runs(project), ["name=a"])
    stage = project / "runs/a.stages/1-base"
    stage.mkdir(parents=True)
    (place,) = index.remove(chosen, project)
    assert place.parent == project / ".trash"
    assert not stage.parent.exists(), "or the name would be taken"
    assert place.with_name(f"{place.name}.stages").joinpath("1-base").is_dir()
    assert (place / "recipe.yaml").is_file()
    assert names(index.known_runs(project)) == ["b", "c"]


def test_a_run_that_is_being_written_stays(project: Path) -> None:
    runs = index.known_runs(project)
    with locked(project / "runs/a"), pytest.raises(RunError, match="being written"):
        index.remove(runs[:1], project)
    assert (project / "runs/a/recipe.yaml").is_file()


def test_a_damaged_index_is_said_and_one_of_another_version_made_anew(project: Path) -> None:
    index.known_runs(project)
    with index._open(project / index.INDEX_FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert len(index.known_runs(project)) == 3
    (project / index.INDEX_FILE).write_bytes(os.urandom(4096))
    with pytest.raises(Exception, match="it is made anew"):
        index.known_runs(project)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model", "is no condition"),
        ("modle=unet", "did you mean 'model'"),
        ("miou>>1", None),
        ("=3", "is no condition"),
    ],
)
def test_conditions_that_mean_nothing(project: Path, text: str, message: str | None) -> None:
    runs = index.known_runs(project)
    if message is None:
        assert index.choose(runs, [text]) == []
        return
    with pytest.raises(RecipeError, match=f"(?i){message}"):
        index.choose(runs, [text])


def test_no_runs_are_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no runs"):
        index.known_runs(tmp_path)
