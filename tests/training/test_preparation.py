from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.errors import DataError, RecipeError, SplitError
from segwright.recipe import Recipe
from segwright.training.preparation import prepare

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]


def test_images_are_divided_and_counted(photos: Folder, tiny: Tiny) -> None:
    images = prepare(tiny(photos(20)), progress=False)
    assert len(images.indices("train")) == 16
    assert len(images.indices("val")) == 4
    assert not set(images.indices("train")) & set(images.indices("val"))


def test_groups_stay_together(photos: Folder, tiny: Tiny) -> None:
    recipe = tiny(photos(30), data={"split": {"kind": "grouped", "groups": r"(flight\d+)_"}})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"path": str(photos(30, name="again"))})})
    images = prepare(recipe, progress=False)
    flights = [{images.pack.ids[i].split("_")[0] for i in images.indices(side)} for side in ("train", "val")]
    assert flights[0]
    assert flights[1]
    assert not flights[0] & flights[1]


def test_equal_pictures_stay_together(photos: Folder, tiny: Tiny) -> None:
    root = photos(6)
    for i in range(20):
        for part in ("images", "masks"):
            shutil.copy(root / part / "flight0_00.png", root / part / f"copy{i}.png")
    images = prepare(tiny(root), progress=False)
    sides = {images.split[name] for name in images.pack.ids if name.startswith("copy")} | {images.split["flight0_00"]}
    assert len(sides) == 1


def test_equal_pictures_on_two_given_sides_are_refused(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    root = photos(6)
    for side in ("train", "val"):
        shutil.copytree(root, tmp_path / "divided" / side)
    with pytest.raises(SplitError, match="same picture stands on two sides"):
        prepare(tiny(tmp_path / "divided"), progress=False)


def test_noise_is_dropped_when_asked(photos: Folder, tiny: Tiny) -> None:
    root = photos(12)
    noise = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    Image.fromarray(noise).save(root / "images" / "alien.png")
    Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(root / "masks" / "alien.png")
    images = prepare(tiny(root, data={"drop_noise": True}), progress=False)
    assert list(images.dropped) == ["alien"]
    assert "alien" not in images.split


def test_drops_by_name_and_names_what_is_not_there(photos: Folder, tiny: Tiny) -> None:
    root = photos(12)
    images = prepare(tiny(root, data={"drop": ["flight0_01"]}), progress=False)
    assert "flight0_01" not in images.split
    with pytest.raises(DataError, match="flight9_99"):
        prepare(tiny(root, data={"drop": ["flight9_99"]}), progress=False)


def test_rules_that_contradict_one_another_are_refused(photos: Folder, tiny: Tiny) -> None:
    root = photos(12)
    names = {"names": ["dark", "bright"]}
    with pytest.raises(RecipeError, match=r"ignore_in_loss: \[dark\]"):
        prepare(tiny(root, classes={**names, "never_predict": ["dark"]}), progress=False)
    with pytest.raises(RecipeError, match="no class is left"):
        prepare(tiny(root, classes={**names, "leave_out_of_mean": ["dark", "bright"]}), progress=False)
    with pytest.raises(RecipeError, match="bright"):
        prepare(tiny(root, classes={**names, "ignore_in_loss": ["brigth"]}), progress=False)
    rules = {**names, "ignore_in_loss": ["dark"], "never_predict": ["dark"], "ignore_in_score": ["dark"]}
    assert prepare(tiny(root, classes=rules), progress=False).classes.scored == (1,)


def test_a_group_on_two_sides_of_a_split_file_is_refused(photos: Folder, tiny: Tiny, tmp_path: Path) -> None:
    root = photos(6)
    names = [f"flight{i // 3}_{i:02d}" for i in range(6)]
    (tmp_path / "split.json").write_text(json.dumps({"train": names[:4], "val": names[4:]}))
    split = {"file": str(tmp_path / "split.json")}
    prepare(tiny(root, data={"split": split}), progress=False)
    with pytest.raises(SplitError, match="same group stands on two sides"):
        prepare(tiny(root, data={"split": {**split, "groups": r"(flight\d+)_"}}), progress=False)
