"""A repaired card leaves out, reads, groups and divides as advised, touches nothing, and can be trained on."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segwright.auditing import duplicates, integrity, verdict
from segwright.auditing.findings import Answer, Finding
from segwright.auditing.repair import HEAD, require_free, write_fixed_card
from segwright.auditing.survey import take_survey
from segwright.auditing.verdict import Audit
from segwright.data.card import read_card
from segwright.data.sources import open_source
from segwright.data.synthetic import write_terrain
from segwright.errors import OutputError
from segwright.recipe import make_recipe
from segwright.training.preparation import Prepared, prepare


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_terrain(tmp_path / "photos", images=24, size=(32, 32), layout="pairs")


@pytest.fixture
def sides(tmp_path: Path) -> Path:
    return write_terrain(tmp_path / "sides", images=30, size=(32, 32), layout="sides")


def audit(root: Path, *findings: Finding, groups: dict[str, str] | None = None) -> Audit:
    """An audit with these findings and groups, on what a true survey saw."""
    survey = take_survey(root, progress=False)
    answers = {
        "integrity": integrity.examine(survey),
        "outliers": Answer({}, findings),
        "duplicates": Answer({"groups": groups or {}}),
    }
    return Audit(root, survey, answers)


def prepared(card: Path) -> Prepared:
    return prepare(make_recipe({"data": {"path": str(card)}}), progress=False)


def digests(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def test_images_are_left_out_each_with_its_reason(photos: Path, tmp_path: Path) -> None:
    before = digests(photos)
    finding = Finding("noise_image", "x", ("terrain_0003",), drop={"terrain_0003": "the picture is noise"})
    done = write_fixed_card(audit(photos, finding), tmp_path / "clean.yaml")
    assert read_card(done.card).dropped == {"terrain_0003": "the picture is noise"}
    assert "leaves out 1 image, each with its reason" in done.changes
    assert not done.left
    images = prepared(done.card)
    assert len(images.split) == 23
    assert "terrain_0003" not in images.split
    assert digests(photos) == before


def test_paths_are_relative_to_the_card(photos: Path, tmp_path: Path) -> None:
    groups = {"terrain_0001": "a", "terrain_0002": "a"}
    card = tmp_path / "cards" / "deep" / "clean.yaml"
    write_fixed_card(audit(photos, groups=groups), card)
    told = read_card(card)
    assert told.source == "../../photos"
    assert (told.groups, told.split) == ("clean-groups.json", "clean-split.json")
    moved = tmp_path / "other"
    (tmp_path / "cards").rename(tmp_path / "other")
    assert len(prepared(moved / "deep" / "clean.yaml").split) == 24


def test_groups_stay_together_and_small_ones_are_named(photos: Path, tmp_path: Path) -> None:
    groups = {f"terrain_{i:04d}": f"place {i // 4}" for i in range(20)} | {"terrain_0021": "alone"}
    done = write_fixed_card(audit(photos, groups=groups), tmp_path / "clean.yaml")
    named = json.loads((tmp_path / "clean-groups.json").read_text())
    assert set(named) == {f"terrain_{i:04d}" for i in range(20)}
    split = prepared(done.card).split
    for place in range(5):
        assert len({split[f"terrain_{i:04d}"] for i in range(4 * place, 4 * place + 4)}) == 1
    assert any("divides the images anew" in change for change in done.changes)


def test_groups_of_the_data_and_found_ones_are_joined(photos: Path, tmp_path: Path) -> None:
    names = [f"images/terrain_{i:04d}" for i in range(24)]
    rows = [f"{name}.png,masks/{Path(name).name}.png,flight{i // 3}" for i, name in enumerate(names)]
    (photos / "list.csv").write_text("\n".join(["image,mask,group", *rows]))
    done = write_fixed_card(audit(photos / "list.csv", groups={names[2]: "x", names[3]: "x"}), tmp_path / "clean.yaml")
    named = json.loads((tmp_path / "clean-groups.json").read_text())
    assert len({named[name] for name in names[:6]}) == 1
    assert named[names[6]] != named[names[5]]
    assert len(prepared(done.card).split) == 24


def test_a_division_that_does_not_leak_stays(sides: Path, tmp_path: Path) -> None:
    done = write_fixed_card(audit(sides), tmp_path / "clean.yaml")
    split = prepared(done.card).split
    assert all(name.startswith(f"{side}/") for name, side in split.items())
    assert len(split) == 30
    assert any("keeps the division" in change for change in done.changes)


def test_a_division_that_leaks_is_made_anew_and_test_stays(sides: Path, tmp_path: Path) -> None:
    found = audit(sides)
    train, val, test = (
        [name for name in found.survey.ids if name.startswith(side)] for side in ("train", "val", "test")
    )
    found = audit(sides, groups=dict.fromkeys((*train[:3], *val[:2]), "one place"))
    split = prepared(write_fixed_card(found, tmp_path / "clean.yaml").card).split
    assert {name for name, side in split.items() if side == "test"} == set(test)
    assert len({split[name] for name in (*train[:3], *val[:2])}) == 1
    assert len(split) == 30


def test_what_shows_a_test_image_is_left_out(sides: Path, tmp_path: Path) -> None:
    ids = audit(sides).survey.ids
    train, test = ([name for name in ids if name.startswith(side)] for side in ("train", "test"))
    for part in ("images", "masks"):
        source, target = sides / test[0].replace("/", f"/{part}/"), sides / train[0].replace("/", f"/{part}/")
        target.with_suffix(".png").write_bytes(source.with_suffix(".png").read_bytes())
    survey = take_survey(sides, progress=False)
    found = Audit(sides, survey, {"duplicates": duplicates.examine(survey)})
    images = prepared(write_fixed_card(found, tmp_path / "clean.yaml").card)
    assert train[0] not in images.split
    assert images.split[test[0]] == "test"
    assert read_card(tmp_path / "clean.yaml").dropped[train[0]] == f"copy of {test[0]}"


def test_what_shows_a_picture_of_other_test_data_is_left_out(photos: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / "field" / part).mkdir(parents=True)
        shutil.copy(photos / part / "terrain_0007.png", tmp_path / "field" / part / "new.png")
    survey, test = take_survey(photos, progress=False), take_survey(tmp_path / "field", progress=False)
    found = Audit(photos, survey, {"duplicates": duplicates.examine(survey, test=test)}, test)
    assert found.verdict == "mend"
    done = write_fixed_card(found, tmp_path / "clean.yaml")
    assert read_card(done.card).dropped == {"terrain_0007": "copy of new in the test data"}


def test_soft_masks_of_two_classes_are_read_by_the_nearest(photos: Path, tmp_path: Path) -> None:
    wanted = {}
    for path in sorted((photos / "masks").iterdir()):
        with Image.open(path) as mask:
            hard = ((np.asarray(mask) > 1) * 255).astype(np.uint8)
        wanted[path.stem] = hard > 127
        if path.stem in ("terrain_0005", "terrain_0006"):
            hard = cv2.GaussianBlur(hard, (3, 3), 0.5)
        Image.fromarray(hard).save(path)
    (photos / "classes.txt").unlink()
    done = write_fixed_card(audit(photos), tmp_path / "clean.yaml")
    assert not done.left
    source = open_source(done.card)
    for sample in source.samples:
        np.testing.assert_array_equal(source.read_mask(sample) == 1, wanted[sample.id])
    assert {sample.id for sample in source.samples} == set(wanted)


def test_what_cannot_be_opened_can_be_trained_on_afterwards(photos: Path, tmp_path: Path) -> None:
    (photos / "masks" / "terrain_0001.png").unlink()
    (photos / "images" / "terrain_0002.png").write_bytes(b"no picture")
    mask = photos / "masks" / "terrain_0003.png"
    mask.write_bytes(mask.read_bytes()[:50])
    done = write_fixed_card(audit(photos), tmp_path / "clean.yaml")
    assert set(read_card(done.card).dropped) == {f"terrain_000{i}" for i in (1, 2, 3)}
    assert len(prepared(done.card).split) == 21


def test_the_card_of_a_card_keeps_what_it_said(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "source: photos\nclasses: [a, b, c, d, e]\nignore_in_score: [a]\ndropped: {terrain_0000: old}\n"
    )
    finding = Finding("noise_image", "x", ("terrain_0003",), drop={"terrain_0003": "new"})
    told = read_card(write_fixed_card(audit(tmp_path / "mine.yaml", finding), tmp_path / "clean.yaml").card)
    assert told.dropped == {"terrain_0000": "old", "terrain_0003": "new"}
    assert told.classes == ("a", "b", "c", "d", "e")
    assert told.ignore_in_score == ("a",)


def test_the_repaired_card_passes_its_own_audit(sides: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        shutil.copy(sides / "train" / part / "terrain_0010.png", sides / "val" / part / "copy.png")
        shutil.copy(sides / "train" / part / "terrain_0012.png", sides / "train" / part / "again.png")
    found = verdict.audit(sides, progress=False)
    assert found.verdict == "mend"
    done = write_fixed_card(found, tmp_path / "clean.yaml")
    again = verdict.audit(done.card, progress=False)
    assert again.verdict == "look"
    assert not {finding.kind for finding in again.findings} & {"copies", "leak"}
    assert {look.split for look in again.survey.looks} == {"train", "val", "test"}


def test_what_no_card_can_mend_is_named(photos: Path, tmp_path: Path) -> None:
    done = write_fixed_card(audit(photos, Finding("absent_class", "x")), tmp_path / "clean.yaml")
    assert done.left == ("Classes that no mask holds",)


def test_only_a_card_of_an_audit_is_replaced(photos: Path, tmp_path: Path) -> None:
    found = audit(photos, groups={"terrain_0001": "a", "terrain_0002": "a"})
    card = tmp_path / "clean.yaml"
    write_fixed_card(found, card)
    write_fixed_card(found, card)
    assert card.read_text().startswith(HEAD)
    mine = tmp_path / "mine.yaml"
    mine.write_text("source: photos\n")
    with pytest.raises(OutputError, match="not written by an audit"):
        write_fixed_card(found, mine)
    (tmp_path / "other-split.json").write_text("{}")
    with pytest.raises(OutputError, match="other-split"):
        require_free(tmp_path / "other.yaml")
    with pytest.raises(OutputError, match=r"\.yaml"):
        require_free(tmp_path / "card.txt")
    assert mine.read_text() == "source: photos\n"
    assert (tmp_path / "other-split.json").read_text() == "{}"
