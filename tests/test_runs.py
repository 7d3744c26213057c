"""Which recipe a source means, and how runs are named and found."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from segwright import runs
from segwright.errors import DataError, RecipeError, RunError
from segwright.recipe import Recipe, make_recipe, write_recipe


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "images").mkdir(parents=True)
    return tmp_path / "photos"


def recipe_for(source: Path, **changes: object) -> Recipe:
    options = {"start_from": None, "budget": (None, None), "overrides": (), **changes}
    return runs.recipe_for(source, **options)  # type: ignore[arg-type]


def test_data_means_the_usual_recipe(photos: Path) -> None:
    recipe = recipe_for(photos, budget=(15.0, None))
    assert recipe.data.path == str(photos.resolve())
    assert recipe.training.minutes == 15
    assert recipe.model == Recipe().model


def test_overrides_as_texts_and_as_a_mapping_mean_the_same(photos: Path) -> None:
    texts = ["model.name=unet", "optimizer.lr=3e-4", "augment.crop_px=[64, 96]", "model.encoder=null"]
    mapping = {"model.name": "unet", "optimizer.lr": 3e-4, "augment.crop_px": (64, 96), "model.encoder": None}
    assert recipe_for(photos, overrides=texts) == recipe_for(photos, overrides=mapping)
    assert recipe_for(photos, overrides={"optimizer.lr": 1e-5}).optimizer.lr == 1e-5


def test_a_folder_named_like_a_number_stays_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2024").mkdir()
    monkeypatch.chdir(tmp_path)
    assert recipe_for(Path("2024")).data.path == str((tmp_path / "2024").resolve())


def test_a_recipe_names_its_data_from_its_own_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos.parent / "study"
    folder.mkdir()
    (folder / "split.json").write_text("{}")
    tree = {"data": {"path": "../photos", "split": {"file": "split.json", "groups": r"(f\d+)_"}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(os.sep)
    recipe = recipe_for(folder / "recipe.yaml", budget=(None, 7))
    assert recipe.data.path == str(photos.resolve())
    assert recipe.data.split.file == str((folder / "split.json").resolve())
    assert recipe.data.split.groups == r"(f\d+)_"
    assert recipe.training.epochs == 7


def test_a_recipe_names_the_runs_it_is_joined_from_from_its_own_folder(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos.parent / "study"
    for name in ("first", "second"):
        (folder / "runs" / name).mkdir(parents=True)
    tree = {"data": {"path": "../photos"}, "model": {"name": "uformer", "branches": ["runs/first", "runs/second"]}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(os.sep)
    both = tuple(str((folder / "runs" / name).resolve()) for name in ("first", "second"))
    assert recipe_for(folder / "recipe.yaml").model.branches == both
    shutil.copytree(folder / "runs", photos / "runs")
    monkeypatch.chdir(photos)
    assert recipe_for(folder / "recipe.yaml").model.branches == both
    monkeypatch.chdir(folder / "runs")
    assert recipe_for(photos, overrides=["model.branches=[first, second]"]).model.branches == both
    with pytest.raises(DataError, match="third: is missing"):
        recipe_for(photos, overrides=["model.branches=[first, third]"])


def test_a_budget_replaces_the_other_kind(photos: Path) -> None:
    path = photos.parent / "recipe.yaml"
    write_recipe(path, make_recipe({"data": {"path": str(photos)}, "training": {"minutes": 40}}))
    recipe = recipe_for(path, budget=(None, 3))
    assert (recipe.training.epochs, recipe.training.minutes) == (3, None)


def test_starting_from_a_run_takes_its_recipe_but_not_its_split(photos: Path) -> None:
    run = photos.parent / "runs" / "old"
    run.mkdir(parents=True)
    old = {"path": "/gone", "format": "folder", "drop": ["x"], "split": {"kind": "kfold"}, "working_size_px": 640}
    write_recipe(run / "recipe.yaml", make_recipe({"data": old, "model": {"name": "unet"}, "loss": {"formula": "ce"}}))
    recipe = recipe_for(photos, start_from=run)
    assert recipe.loss.formula == "ce"
    assert recipe.data.working_size_px == 640
    assert recipe.data.split == Recipe().data.split
    assert (recipe.data.drop, recipe.data.format) == ((), "auto")


def test_what_cannot_be_trained_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        recipe_for(tmp_path / "nothing")
    (tmp_path / "r.yaml").write_text("model: {name: unet}\n")
    with pytest.raises(RecipeError, match="names no data"):
        recipe_for(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("data: {path: nowhere}\n")
    with pytest.raises(DataError, match=r"nowhere: is missing"):
        recipe_for(tmp_path / "r.yaml")
    with pytest.raises(DataError, match=r"weights.pth: is missing"):
        recipe_for(tmp_path, overrides=["model.weights=weights.pth"])


def test_cards_and_recipes_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("source: photos\n")
    (tmp_path / "recipe.yaml").write_text("data: {path: photos}\n")
    assert not runs.is_recipe(tmp_path / "data.yaml")
    assert runs.is_recipe(tmp_path / "recipe.yaml")
    assert not runs.is_recipe(tmp_path)


def test_runs_are_named_by_their_data(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "runs"
    assert runs.new_run(out, name=None, source=photos) == out / "photos-1"
    (out / "photos-1").mkdir(parents=True)
    (out / "photos-3").mkdir()
    assert runs.new_run(out, name=None, source=photos) == out / "photos-2"
    (photos / "recipe.yaml").write_text("")
    assert runs.new_run(out, name=None, source=photos / "recipe.yaml") == out / "photos-2"
    (tmp_path / "mars.npz").write_bytes(b"")
    assert runs.new_run(out, name=None, source=tmp_path / "mars.npz") == out / "mars-1"


def test_a_taken_or_wrong_name_is_refused(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "night").mkdir()
    with pytest.raises(RunError, match="Call this one 'night-1'"):
        runs.new_run(tmp_path, name="night", source=photos)
    for name in ("", "a/b", "..", ".hidden", "/tmp"):
        with pytest.raises(RunError, match="no name for a run"):
            runs.new_run(tmp_path, name=name, source=photos)


def test_a_missing_run_names_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="segwright train"):
        runs.find_run(tmp_path / "first")
    for name in ("alpha", "beta"):
        (tmp_path / name).mkdir()
        write_recipe(tmp_path / name / "recipe.yaml", Recipe())
    with pytest.raises(RunError, match="alpha, beta"):
        runs.find_run(tmp_path / "first")
    assert runs.find_run(tmp_path / "beta") == tmp_path / "beta"


def test_a_start_keeps_its_architecture(photos: Path) -> None:
    run = photos.parent / "runs" / "first"
    run.mkdir(parents=True)
    write_recipe(run / "recipe.yaml", make_recipe({"model": {"name": "unet", "encoder": None}}))
    recipe = recipe_for(photos, start_from=run, overrides=["optimizer.lr=1", "model.name=unet"])
    assert recipe.model.name == "unet"
    with pytest.raises(RecipeError, match=r"'model.name' = 'fpn', but .*first was trained with 'unet'"):
        recipe_for(photos, start_from=run, overrides=["model.name=fpn"])
    with pytest.raises(RecipeError, match=r"'model.arguments' = {'depth': 3}"):
        recipe_for(photos, start_from=run, overrides=["model.arguments.depth=3"])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".x", "a\nb", "a\x1b[2J"])
def test_what_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="is no name for a run"):
        runs.new_run(tmp_path, name=name, source=tmp_path)


def test_runs_of_oddly_named_data(tmp_path: Path) -> None:
    (tmp_path / "two\nlines").mkdir()
    assert runs.new_run(tmp_path, name=None, source=tmp_path / "two\nlines") == tmp_path / "two_lines-1"
