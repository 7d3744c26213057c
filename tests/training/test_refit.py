"""A refit learns from the validation images too, with the epochs of its run, and nothing pretends to judge it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from segwright import verbs
from segwright.bundle import load_bundle
from segwright.cli import main
from segwright.errors import RecipeError, RunError
from segwright.files import read_json
from segwright.recipe import Recipe, make_recipe, override, read_recipe, write_recipe
from segwright.training.refit import refit_of
from segwright.training.run import train
from segwright.training.stages import train_in_stages

Folder = Callable[..., Path]
Tiny = Callable[..., Recipe]


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["segwright", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def trained(write_photos: Folder, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs on 8 training, 2 validation and 2 test images."""
    root = tmp_path_factory.mktemp("home")
    split = {"split": {"kind": "random", "val": 0.17, "test": 0.17}, "audit": False}
    write_recipe(root / "recipe.yaml", tiny(write_photos(root / "photos", count=12), epochs=3, data=split))
    return verbs.train(root / "recipe.yaml", name="first", out=root / "runs", progress=False)


@pytest.fixture
def first(trained: Path, tmp_path: Path) -> Path:
    """The same run, in this test's own folder of runs; its images are those of all tests."""
    return shutil.copytree(trained, tmp_path / "runs" / "first")


def test_a_refit_learns_from_the_validation_images_and_is_judged_by_nothing(first, monkeypatch, capsys):
    before, bundle = read_json(first / "split.json"), read_json(first / "bundle" / "bundle.json")
    epochs = bundle["info"]["epoch"]
    assert call(monkeypatch, "train", first, "--refit", "--out", first.parent) == 0
    told = capsys.readouterr()
    run = first.parent / "first-refit"
    assert f"refit    of first: {epochs} epochs, as its kept weights had, on 10 images in place of 8" in told.err
    assert "No score: trained on its validation images too" in told.out
    split, info = read_json(run / "split.json"), load_bundle(run).info
    assert set(split) == {"train", "test"}
    assert set(split["train"]) == {*before["train"], *before["val"]}
    assert split["test"] == before["test"]
    assert info["score"] is None
    miou = read_json(first / "scores" / "val.json")["definitions"]["declared"]["miou"]["estimate"]
    assert f"first scored mIoU {miou:.3f}" in info["note"]
    assert info["epoch"] == epochs
    assert info["trained_on"]["images"] == 10
    after = read_recipe(run / "recipe.yaml")
    assert after.training.keep == "last"
    assert after.model == read_recipe(first / "recipe.yaml").model
    assert "val loss" not in (run / "log.txt").read_text()
    assert info["note"] in (run / "report.html").read_text()
    assert not (run / "scores").exists()

    assert call(monkeypatch, "evaluate", run) == 2
    assert "has learnt from its validation images too, so they judge nothing" in capsys.readouterr().err
    assert set(verbs.evaluate(run, split="test", progress=False).ids) == set(before["test"])
    verbs.report(run)
    with pytest.raises(RunError, match=r"has learnt from 2 images that .*first is judged by"):
        verbs.ensemble([first, run], out=first.parent / "both", progress=False)
    with pytest.raises(RunError, match="learnt from its validation images"):
        verbs.ensemble([run, first], out=first.parent / "both", progress=False)
    for members in ([first, run], [run, first]):
        both = first.parent / f"both-{members[0].name}"
        assert verbs.ensemble(members, out=both, by="equal", progress=False) is None
        info = load_bundle(both).info
        assert (info["score"], info["weights"], len(info["members"])) == (None, [0.5, 0.5], 2)
        assert "no score of its own" in info["note"]
        assert "no score of its own" in (both / "card.md").read_text()
        with pytest.raises(RunError, match=r"learnt from (\d+|its validation) images"):
            verbs.evaluate(both, progress=False)
    with pytest.raises(RunError, match="learnt from its validation images"):
        verbs.ensemble([run, run], out=first.parent / "soup", by="equal", soup=True, progress=False)
    images = Path(read_recipe(run / "recipe.yaml").data.path or "") / "images"
    with pytest.raises(RunError, match=r"so a student could not be validated.*[Ll]et .*first teach"):
        verbs.pseudo(run, images, out=run.parent / "more")
    with pytest.raises(RunError, match=r"has learnt from 2 images that .*[Tt]ake .*first, which it is a refit of"):
        verbs.pseudo(run, images, out=run.parent / "more", join=first)
    with pytest.raises(RunError, match="is a refit itself"):
        verbs.refit(run, name="again", out=first.parent, progress=False)


@pytest.mark.parametrize("change", ["training.epochs=50", "training.early_stopping=2", "training.keep=last"])
def test_what_a_refit_settles_itself_is_not_overwritten_in_silence(first, change):
    with pytest.raises(RecipeError, match=rf"{change.partition('=')[0]} of a refit follows.*--epochs"):
        verbs.refit(first, name="other", out=first.parent, overrides=[change], progress=False)


def test_runs_and_tables_cope_with_a_run_without_a_score(first):
    run = verbs.refit(first, name="final", out=first.parent, epochs=1, progress=False)
    known = {one.run.name: one for one in verbs.list_runs(first.parent, sort="-miou")}
    assert [*known] == ["first", "final"]
    assert known["final"].value("state") == "done"
    assert known["final"].value("miou") is None
    table, _ = verbs.leaderboard(first.parent)
    assert len(table.rows) == 2
    assert table.rows[1].seeds == 0
    resumed = verbs.resume(run, epochs=2, progress=False)
    assert load_bundle(resumed).info["epoch"] == 2
    assert load_bundle(resumed).info["score"] is None


def test_its_recipe_trains_it_again(first, tmp_path):
    run = verbs.refit(first, name="final", out=first.parent, epochs=1, progress=False)
    again = train(read_recipe(run / "recipe.yaml"), run=tmp_path / "again", progress=False)
    one, other = load_bundle(run).model.state_dict(), load_bundle(again).model.state_dict()
    assert all(one[name].equal(other[name]) for name in one)
    assert read_json(again / "split.json") == read_json(run / "split.json")


def test_changed_images_are_refused(first, tmp_path):
    copied = shutil.copytree(Path(str(read_recipe(first / "recipe.yaml").data.path)), tmp_path / "photos")
    Image.new("L", (32, 32), 9).save(copied / "images" / "flight0_00.png")
    recipe = override(read_recipe(first / "recipe.yaml"), [f"data.path={copied}"])
    write_recipe(first / "recipe.yaml", recipe)
    with pytest.raises(RunError, match=r"not what this run was trained with: 1 with another picture \(flight0_00\)"):
        verbs.refit(first, name="final", out=first.parent, progress=False)
    assert not (first.parent / "final").exists()


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "set training.keep: last"),
        ({"training": {"keep": "last", "early_stopping": 3}}, "set training.early_stopping: null"),
        ({"training": {"keep": "last"}, "schedule": {"name": "plateau"}}, "set another schedule.name than plateau"),
    ],
)
def test_nothing_of_a_recipe_may_wait_for_a_validation(tree, said):
    with pytest.raises(RecipeError, match=said) as caught:
        make_recipe(tree | {"data": {"split": {"refit": "runs/first"}}})
    assert not str(caught.value).startswith("''")


def test_every_stage_has_the_epochs_of_its_own_best(photos, tiny, tmp_path):
    stage = {"name": "warm", "training": {"minutes": 0.01, "early_stopping": 2}, "loss": {"formula": "ce"}}
    recipe = tiny(photos(), epochs=1).model_copy(update={"stages": (stage,)})
    run = train_in_stages(make_recipe(recipe.as_dict()), run=tmp_path / "run", progress=False)
    reached = read_json(tmp_path / "run.stages" / "1-warm" / "bundle" / "bundle.json")["info"]["epoch"]
    found = refit_of(run, progress=False)
    assert found.start_from is None
    assert found.recipe.training.epochs == 1
    assert found.recipe.stages[0]["training"] == {
        "epochs": reached, "minutes": None, "early_stopping": None, "keep": "last",
    }  # fmt: skip
