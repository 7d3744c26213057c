"""No run is judged by images that its weights have learnt from, however many runs ago."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segwright.errors import RunError
from segwright.recipe import Recipe
from segwright.runs import recipe_for
from segwright.training.run import train

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]
KFOLD = {"split": {"kind": "kfold", "folds": 3, "fold": 1, "seed": 7}}


@pytest.fixture(scope="module")
def first(write_photos: Folder, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("first")
    data = write_photos(root / "photos", count=12)
    return data, train(tiny(data, epochs=1, data=KFOLD), run=root / "first", progress=False)


def given(run: Path) -> dict[str, Any]:
    return {"split": {"kind": "given", "file": str(run / "split.json")}}


def turned(run: Path, file: Path) -> dict[str, Any]:
    """Its validation images learnt, and as many of those that it learnt from held out."""
    sides = json.loads((run / "split.json").read_text())
    count = len(sides["val"])
    file.write_text(json.dumps({"train": sides["val"] + sides["train"][count:], "val": sides["train"][:count]}))
    return {"split": {"kind": "given", "file": str(file)}}


def test_a_run_that_starts_from_another_is_not_judged_by_what_that_learnt(
    first: tuple[Path, Path], tiny: Tiny, tmp_path: Path
) -> None:
    data, run = first
    other = tiny(data, epochs=1, data=turned(run, tmp_path / "turned.json"))
    for start in (run, run / "bundle"):
        with pytest.raises(RunError, match=r"first: has learnt from \d images .*such as 'flight.*--split .*split.json"):
            train(other, run=tmp_path / "second", start_from=start, progress=False)
    assert not (tmp_path / "second").exists()
    second = train(tiny(data, epochs=1, data=given(run)), run=tmp_path / "second", start_from=run, progress=False)
    with pytest.raises(RunError, match=r"(first|second): has learnt from"):
        train(other, run=tmp_path / "third", start_from=second, progress=False)


def test_what_came_before_the_start_counts_too(
    first: tuple[Path, Path], photos: Folder, tiny: Tiny, tmp_path: Path
) -> None:
    data, run = first
    away = train(tiny(photos(seed=3), epochs=1), run=tmp_path / "away", start_from=run, progress=False)
    with pytest.raises(RunError, match="first: has learnt from"):
        train(tiny(data, epochs=1, data=turned(run, tmp_path / "turned.json")), run=tmp_path / "back",
              start_from=away, progress=False)  # fmt: skip


def test_branches_are_looked_at(first: tuple[Path, Path], tiny: Tiny, tmp_path: Path) -> None:
    data, run = first
    model = {"name": "uformer", "arguments": {}, "branches": [str(run), str(run)]}
    with pytest.raises(RunError, match="first: has learnt from"):
        train(tiny(data, epochs=1, model=model, data=turned(run, tmp_path / "turned.json")), run=tmp_path / "both",
              progress=False)  # fmt: skip


def test_the_same_data_are_divided_as_before_and_others_as_usual(first: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = first
    options: dict[str, Any] = {"start_from": run, "budget": (None, 1), "overrides": ()}
    assert recipe_for(data, **options).data.split.fold == 1
    again = train(recipe_for(data, **options), run=tmp_path / "again", start_from=run, progress=False)
    assert json.loads((again / "split.json").read_text()) == json.loads((run / "split.json").read_text())
    copied = shutil.copytree(data, tmp_path / "copied")
    assert recipe_for(copied, **options).data.split == Recipe().data.split


def test_a_run_goes_on_without_the_one_that_it_started_from(
    first: tuple[Path, Path], photos: Folder, tiny: Tiny, tmp_path: Path
) -> None:
    start = shutil.copytree(first[1], tmp_path / "start")
    recipe = tiny(photos(seed=5), epochs=1)
    run = train(recipe, run=tmp_path / "run", start_from=start, progress=False)
    shutil.rmtree(start)
    train(recipe, run=run, resume=True, changes=["training.epochs=2"], progress=False)
