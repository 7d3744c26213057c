"""An average of runs is judged by images that none of them, nor its weights, have learnt from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segwright import verbs
from segwright.errors import RunError
from segwright.files import read_json
from segwright.recipe import Recipe
from segwright.runs import recipe_of
from segwright.training.run import train

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def two(write_photos: Folder, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("two")
    data = write_photos(root / "photos", count=24)
    split = {"split": {"kind": "random", "val": 0.25, "test": 0.25}}
    runs = [
        train(tiny(data, epochs=epochs, data=split, training={"seed": epochs}), run=root / name, progress=False)
        for name, epochs in (("first", 3), ("second", 4))
    ]
    return runs[0], runs[1]


def test_an_average_is_scored_on_the_test_side_of_its_first_run(two: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "both"
    verbs.ensemble(two, out=both, progress=False)
    told = verbs.evaluate(both, split="test", progress=False)
    assert sorted(told.ids) == sorted(json.loads((two[0] / "split.json").read_text())["test"])
    written = read_json(both / "scores" / "test.json")["definitions"]["declared"]["miou"]["estimate"]
    assert written == told.miou > 0.6
    with pytest.raises(RunError, match=r"both: its weights were fitted on the validation images.*--split test"):
        verbs.evaluate(both, progress=False)


def test_equal_weights_may_be_judged_by_the_validation_images(two: tuple[Path, Path], tmp_path: Path) -> None:
    verbs.ensemble(two, out=tmp_path / "both", by="equal", progress=False)
    assert verbs.evaluate(tmp_path / "both", progress=False).split == "val"


def test_what_a_later_run_has_learnt_from_judges_no_average(two: tuple[Path, Path], tiny: Tiny, tmp_path: Path) -> None:
    sides = json.loads((two[0] / "split.json").read_text())
    sides = {"train": sides["train"] + sides["test"], "val": sides["val"]}
    (tmp_path / "more.json").write_text(json.dumps(sides))
    data = recipe_of(two[0]).data.path
    split = {"split": {"kind": "given", "file": str(tmp_path / "more.json")}}
    other = train(tiny(Path(data or ""), epochs=1, data=split), run=tmp_path / "other", progress=False)
    verbs.ensemble([two[0], other], out=tmp_path / "both", progress=False)
    with pytest.raises(RunError, match=r"other: has learnt from \d+ images that .*first is judged by"):
        verbs.evaluate(tmp_path / "both", split="test", progress=False)


def test_models_of_other_working_sizes_are_not_averaged(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = shutil.copytree(two[1], tmp_path / "other")
    index = other / "bundle" / "bundle.json"
    tree = json.loads(index.read_text())
    tree["info"]["input"]["working_size_px"] = 16
    index.write_text(json.dumps(tree))
    with pytest.raises(RunError, match=r"other: was trained with data.working_size_px 16, and .*first with None"):
        verbs.ensemble([two[0], other], out=tmp_path / "both", progress=False)
