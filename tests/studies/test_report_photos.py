"""The studies of the reports on photos (VOC 2007, drone, flood): all rows of their tables, models that can be built,
images that can be read; the images are generated, laid out as the real ones are."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segwright.data.sources.folder import list_folder
from segwright.data.splits import make_split, read_split
from segwright.errors import DataError
from segwright.files import write_mask
from segwright.losses import build_loss
from segwright.models import ModelSpec, build_model
from segwright.recipe import make_recipe, stages_of
from segwright.run_images import source_of
from segwright.studies.grid import Study, Trial, read_study, trials
from segwright.studies.needs import require_needs

STUDIES = Path(__file__).parents[2] / "studies"
CAMVID = Path(os.environ.get("SEGWRIGHT_DATA") or STUDIES.parents[1] / "shared" / "data") / "camvid"
FILES = [path.relative_to(STUDIES).as_posix() for path in sorted(STUDIES.glob("00[234]-*/*.yaml"))]
PUBLISHED = ["002-voc2007/study.yaml", "003-drone/study.yaml", "003-drone/binary.yaml", "004-flood/study.yaml"]

VOC = """
.7396 .0657 .7038 .0599 | .7218 .0584 .6990 .0571 | .6843 .0567 .6590 .0556 | .7466 .0605 .7213 .0588
.7486 .0613 .7209 .0592 | .7508 .0571 .7261 .0557 | .7352 .0429 .7089 .0434 | .7429 .0642 .7140 .0600
.7385 .0646 - .0616     | .7306 .0458 - .0408     | .7020 .0504 .6744 .0467 | .7508 .0554 .7289 .0548
.7378 .0456 .7108 .0414 | .7449 .0624 .7158 .0571 | .757 .0786 .726 .0744   | .750 .0667 .729 .0634
.751 .0514 .729 .0467
"""
"""Validation accuracy and IoU, test accuracy and IoU: Tables 1 to 6 of report 002, in their order."""


def trials_of(name: str) -> tuple[Trial, ...]:
    """One of each row."""
    study = read_study(STUDIES / name)
    return tuple({trial.row: trial for trial in trials(study)}.values())


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Study]:
    """Reads a study in a copy of its folder, where no images lie."""
    monkeypatch.setenv("SEGWRIGHT_DATA", str(tmp_path / "data"))

    def read(name: str) -> Study:
        copy = tmp_path / "a" / "studies" / Path(name).parent
        shutil.copytree(STUDIES / Path(name).parent, copy, dirs_exist_ok=True)
        return read_study(copy / Path(name).name)

    return read


def test_voc_has_the_rows_of_its_six_tables():
    keys = ("pixel_accuracy", "miou", "test accuracy", "test mIoU")
    told = [[float(one) if one != "-" else None for one in row.split()] for row in re.split(r"[|\n]", VOC.strip())]
    rows = [trial for trial in trials_of("002-voc2007/study.yaml") if trial.figure]
    assert [[row.figure.get(key) for key in keys] for row in rows] == told
    assert [row.row[:2] for row in rows] == ["T1"] * 5 + ["T2"] * 3 + ["T3", "T3", "T4", "T4", "T5", "T5"] + ["T6"] * 3
    asked = [(row.recipe["optimizer"]["lr"], row.recipe["optimizer"]["weight_decay"]) for row in rows[:5]]
    assert asked == [(5e-4, 0), (5e-4, 1e-3), (5e-4, 5e-4), (1e-3, 0), (2e-3, 1e-3)]
    assert {row.recipe["model"]["initialization"] for row in rows} == {"xavier"}
    assert {row.recipe["training"]["batch_size"] for row in rows} == {16}
    assert [row.recipe["model"]["freeze_encoder"] for row in rows] == [False] * 14 + [True, False, False]


def test_drone_has_its_table_and_three_numbers_of_copies():
    rows = {trial.row: trial for trial in trials_of("003-drone/study.yaml")}
    keys = ("test loss", "test mIoU", "test mean pixel accuracy")
    table = {name: tuple(row.figure[key] for key in keys) for name, row in rows.items() if "test mIoU" in row.figure}
    assert table == {
        "SegFormer": (0.373, 0.826, 0.870), "U-Net frozen": (0.345, 0.783, 0.842), "UFormer": (0.146, 0.853, 0.890),
    }  # fmt: skip
    for name in ("U-Net scratch", "U-Net frozen", "SegFormer", "SegFormer convolution", "UFormer"):
        several = [rows[name], rows[f"{name}, 500 copies"], rows[f"{name}, 1000 copies"]]
        assert [row.copies.count if row.copies else 0 for row in several] == [0, 500, 1000]
        assert several[0].recipe == several[1].recipe == several[2].recipe
    most = {name for name, row in rows.items() if row.copies and row.copies.count == 1500}
    assert most == {"U-Net scratch, 1500 copies", "U-Net frozen, 1500 copies"}
    searched = [row.recipe["loss"]["formula"] for name, row in rows.items() if name[:4] in ("Tver", "U-Ne")]
    pairs = list(product((0.3, 0.5, 0.7), repeat=2))
    assert set(searched) == {f"tversky(alpha={alpha}, beta={beta})" for alpha, beta in pairs}
    schedule = rows["SegFormer"].recipe["schedule"]
    assert (schedule["name"], schedule["drop"], schedule["patience"]) == ("plateau", 0.1, 3)


def test_flood_has_its_table():
    rows = [trial for trial in trials_of("004-flood/study.yaml") if trial.figure]
    assert [tuple(row.figure.values()) for row in rows] == [
        (3.045, 3.049, 0.5838), (1.375, 1.647, 0.6075), (0.280, 0.986, 0.7627), (0.266, 1.011, 0.7213),
    ]  # fmt: skip
    told = [(row.recipe["optimizer"]["name"], row.recipe["optimizer"]["lr"]) for row in rows]
    assert told == [("sgd", 5e-4), ("adam", 5e-4), ("adam", 1e-3), ("adam", 1e-3)]
    assert [row.recipe["training"]["epochs"] for row in rows] == [20, 20, 30, 60]
    assert [row.copies is not None for row in rows] == [False, False, False, True]


@pytest.mark.parametrize("name", FILES)
def test_a_study_stands_anywhere_and_says_what_is_missing(name, away):
    assert not re.search(r"(?m)(^|[\s\[:,'\"])[/~]\w", (STUDIES / name).read_text(encoding="utf-8"))
    study = away(name)
    assert [row.name for row in study.rows] == [trial.row for trial in trials_of(name)]
    with pytest.raises(DataError, match=rf"{Path(study.needs[0].path).name}: is missing: .*is read too"):
        require_needs(study.needs, study.folder)


@pytest.mark.parametrize("name", [name for name in FILES if "standin" in name])
def test_a_stand_in_gives_every_row_the_same_minutes(name):
    rows = trials_of(name)
    recipes = [make_recipe(row.recipe) for row in rows]
    parts = [[part.training for part in (*(stage for _, stage in stages_of(one)), one)] for one in recipes]
    assert {sum(one.minutes for one in row) for row in parts} in ({1.5}, {2})
    assert {one.epochs for row in parts for one in row} == {None}
    assert read_study(STUDIES / name).seeds == ((0, 1, 2) if "voc" in name else (0,))
    theirs = {trial.row for trial in trials_of(f"{Path(name).parent}/study.yaml")}
    slow = {
        f"{one}, {count} copies" for one in ("SegFormer convolution", "UFormer", "SegFormer") for count in (500, 1000)
    }
    slow -= {"SegFormer, 500 copies", "UFormer, 500 copies"}
    slow |= {"U-Net scratch, 1500 copies", "U-Net frozen, 1500 copies", "DeepLabV3+ ResNet-152", "DeepLabV3+ Xception"}
    # Where alpha and beta do not add up to 1: not searched in two classes.
    search = {row for row in theirs if row.startswith("Tversky") and row[-5:] not in (".3 .7", ".7 .3")}
    assert {row.row for row in rows} == theirs - slow - (search if "nuclei" in name else set())


def test_nuclei_are_turned_and_streets_are_not():
    for name, turned in (("standin-camvid", None), ("standin-nuclei", True)):
        rows = [row for row in trials_of(f"003-drone/{name}.yaml") if row.copies]
        assert len(rows) == 6
        for row in rows:
            asked = row.copies.overrides.get("augment.quarter_turns", True)
            assert asked is (turned or False), row.row


def test_every_model_and_loss_can_be_built():
    specs: dict[str, ModelSpec] = {}
    for recipe in (make_recipe(trial.recipe) for name in FILES for trial in trials_of(name)):
        build_loss(recipe.loss.formula, num_classes=5)
        asked = recipe.model
        key = json.dumps([asked.name, asked.encoder, asked.arguments], sort_keys=True)
        specs[key] = ModelSpec(
            name=asked.name, in_channels=3, num_classes=5, encoder=asked.encoder, arguments=asked.arguments
        )
    for key, spec in specs.items():
        # The library draws how deep each layer of a mit encoder may be skipped, which no meta tensor tells.
        with torch.device("cpu" if "mit_b" in key else "meta"):
            assert build_model(spec).spec.name == spec.name
    assert len(specs) > 20


def _photos(root: Path, folders: tuple[str, str], *, labels: int, ending: str = "", count: int = 20) -> None:
    rng = np.random.default_rng(0)
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for place in range(count):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(root / folders[0] / f"{place}.jpg")
        mask = rng.integers(0, labels, (24, 32), dtype=np.uint8)
        Image.fromarray(mask).save(root / folders[1] / f"{place}{ending}.png")


def _devkit(root: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    palette = np.arange(63, dtype=np.uint8).reshape(21, 3)
    for place, side in enumerate(("train", "val", "test")):
        Image.new("RGB", (32, 24)).save(root / f"JPEGImages/{place}.jpg")
        write_mask(root / f"SegmentationClass/{place}.png", np.full((24, 32), place * 10, dtype=np.uint8), palette)
        (root / f"ImageSets/Segmentation/{side}.txt").write_text(f"{place}\n")


LAYOUTS: dict[str, tuple[Callable[[Path], None], int, dict[str, int]]] = {
    "002-voc2007/study.yaml": (
        lambda data: _devkit(data / "VOCdevkit/VOC2007"), 21, {"train": 1, "val": 1, "test": 1},
    ),
    "003-drone/study.yaml": (
        lambda data: _photos(data / "drone", ("original_images", "label_images_semantic"), labels=5), 5,
        {"train": 14, "val": 4, "test": 2},
    ),
    "003-drone/binary.yaml": (
        lambda data: _photos(data / "drone-binary", ("original_images", "images_semantic"), labels=2), 2,
        {"train": 14, "val": 4, "test": 2},
    ),
    "004-flood/study.yaml": (
        lambda data: _photos(data / "flood", ("images", "masks"), labels=23, ending="_lab"), 25,
        {"train": 17, "val": 3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_real_files_are_read_and_divided(name, away, tmp_path):
    make, num_classes, sides = LAYOUTS[name]
    make(tmp_path / "data")
    study = away(name)
    require_needs(study.needs, study.folder)
    recipe = make_recipe(trials(study)[0].recipe)
    source = source_of(recipe)
    assert source.classes.num_classes == num_classes
    assert source.labelled
    asked = recipe.data.split
    ids, given = [one.id for one in source.samples], [one.split for one in source.samples]
    split = list(make_split(ids, kind=asked.kind, given=given, val=asked.val, test=asked.test).values())
    assert {side: split.count(side) for side in split} == sides


@pytest.mark.parametrize(
    ("file", "sizes"), [("003-drone/camvid-400.json", (300, 50, 50)), ("004-flood/camvid-261.json", (222, 39, 50))]
)
def test_neighbours_in_a_video_stand_on_one_side(file, sizes):
    sides: dict[str, list[Any]] = json.loads((STUDIES / file).read_text(encoding="utf-8"))
    assert tuple(len(sides[side]) for side in ("train", "val", "test")) == sizes
    assert {one.partition("/")[0] for one in sides["train"]} == {"train"}
    assert {one.partition("/")[0] for side in ("val", "test") for one in sides[side]} == {"val"}
    # The held-out frames follow on those that validate, with one or more left out between them.
    assert max(sides["val"]) < min(sides["test"])


@pytest.mark.data
@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"{CAMVID} is absent; SEGWRIGHT_DATA names the folder of data")
@pytest.mark.parametrize("file", ["003-drone/camvid-400.json", "004-flood/camvid-261.json"])
def test_its_frames_are_there(file):
    ids = [sample.id for sample in list_folder(CAMVID).samples]
    assert len(read_split(STUDIES / file, ids)) == sum(map(len, json.loads((STUDIES / file).read_text()).values()))
