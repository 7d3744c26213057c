"""`segwright augment` and `segwright augmentations` on generated terrain."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from segwright import verbs
from segwright.augment import PRESETS, Policy
from segwright.augment.catalogue import AUGMENTATIONS, preset_table, presets_as_markdown
from segwright.cli import main
from segwright.data.sources import open_source
from segwright.data.synthetic import terrain_stack, write_terrain
from segwright.errors import OutputError, RecipeError
from segwright.recipe import AugmentRecipe, make_recipe
from segwright.training.preflight import policy_of


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_terrain(tmp_path_factory.mktemp("home") / "photos", images=14, size=(32, 48), layout="sides")


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["segwright", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_copies_stand_beside_the_originals(photos, tmp_path, monkeypatch, capsys):
    words = ["--preset", "medium", "--override", "augment.match=1", "--override", f"augment.match_to={photos}/test"]
    assert call(monkeypatch, "augment", str(photos), "-n", "6", "-o", str(tmp_path / "out"), *words) == 0
    assert "6 copies of 6 training images, beside 14 originals" in capsys.readouterr().out
    with (tmp_path / "out" / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["split"] for row in rows if row["original"]} == {"train"}
    before, after = open_source(photos), open_source(tmp_path / "out" / "data.yaml")
    assert after.classes == before.classes
    assert [s.split for s in after.samples].count("val") == [s.split for s in before.samples].count("val")


def test_an_archive_is_divided_as_in_training(tmp_path):
    images, masks = terrain_stack(12, size=(32, 48))
    np.savez(tmp_path / "stack.npz", images=images, masks=masks)
    out, changes = tmp_path / "out", ["data.split.val=0.25", "augment.elastic_px=3"]
    done = verbs.augment(tmp_path / "stack.npz", out=out, count=20, overrides=changes, progress=False)
    assert done.originals == 12
    assert done.copied == 9
    with pytest.raises(OutputError, match="there already"):
        verbs.augment(tmp_path / "stack.npz", out=out, count=1, progress=False)


def test_copies_of_copies_name_the_values_of_the_first_masks(tmp_path):
    images, masks = terrain_stack(8, size=(32, 48))
    labels = np.minimum(masks, 1)
    np.savez(tmp_path / "stack.npz", images=images, masks=(labels * 255).astype(np.uint8))
    before, seen = tmp_path / "stack.npz", []
    for name in ("first", "second"):
        changes = [] if before.suffix == ".yaml" else ["data.split.val=0.25"]
        before = verbs.augment(before, out=tmp_path / name, count=2, overrides=changes, progress=False).card
        seen.append(open_source(before))
    assert [source.values_to_submit for source in seen] == [(0, 255), (0, 255)]
    assert [source.coding.values for source in seen] == [(0, 1), (0, 1)]


def test_a_folder_within_the_data_is_refused(photos):
    with pytest.raises(OutputError, match="inside the data"):
        verbs.augment(photos, out=photos / "copies", count=1, progress=False)
    assert not (photos / "copies").exists()


def test_only_the_training_side_can_be_asked_for(photos, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "augment", str(photos), "-n", "1", "-o", str(tmp_path / "x"), "--split", "val") == 2
    assert "--split" in capsys.readouterr().err


def test_the_list_names_every_key_once(monkeypatch, capsys):
    assert call(monkeypatch, "augmentations") == 0
    listed = [key for one in AUGMENTATIONS.values() for key in one.keys.split(", ")]
    assert sorted(listed) == sorted([*Policy.__dataclass_fields__, "only_classes"])
    assert set(listed) <= set(AugmentRecipe.model_fields)
    shown = capsys.readouterr().out
    for name in (*AUGMENTATIONS, "cutmix", *PRESETS, "The default is medium"):
        assert name in shown


def test_the_page_shows_what_each_preset_contains():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "augment.md").read_text()
    assert presets_as_markdown() in page, "bring the table up to date: python -m segwright.augment.catalogue"
    assert f"`{AugmentRecipe().preset}` is the default of a training" in " ".join(page.split())
    heads, rows = preset_table()
    assert heads == ["key", *PRESETS]
    assert ["scale", "-", "[0.9, 1.1]", "[0.75, 1.5]", "[0.5, 2]", "[1, 1.4]"] in rows
    assert {name for name, *_ in rows} <= set(AugmentRecipe.model_fields)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_what_is_not_given(preset):
    assert policy_of(AugmentRecipe(preset=preset), channels=3) == PRESETS[preset]
    changed = policy_of(AugmentRecipe(preset=preset, elastic_px=2.0, rotate_fill="zoom"), channels=3)
    assert (changed.elastic_px, changed.rotate_fill) == (2.0, "zoom")


@pytest.mark.parametrize("tree", [{"match": 0.5}, {"match_to": "photos"}, {"elastic_sigma_px": 0.2}])
def test_half_of_a_wish_is_refused(tree):
    with pytest.raises(RecipeError):
        make_recipe({"augment": tree})
