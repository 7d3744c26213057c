"""Every fault becomes a finding that names its images; what a card can mend is not left out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.auditing.findings import KINDS, Finding
from segwright.auditing.integrity import examine
from segwright.auditing.labels import measure_labels
from segwright.auditing.survey import Fault, Look, Survey, take_survey
from segwright.data.card import write_card
from segwright.data.sources import open_source
from segwright.data.sources.classes import default_colors
from segwright.data.synthetic import write_terrain
from segwright.types import ClassSet

NAMES = ("sky", "soil", "rock")
CLASSES = ClassSet(NAMES, default_colors(3))
MIXED = np.array([[0, 1], [1, 2]], dtype=np.uint8)


def looked(*masks: np.ndarray, **more: object) -> Survey:
    looks = tuple(
        Look(f"{place}", f"{place}.png", f"m/{place}.png", size_px=(8, 8), channels=3, depth="uint8",
             labels=measure_labels(mask, 3), **more)  # type: ignore[arg-type]
        for place, mask in enumerate(masks)
    )  # fmt: skip
    return Survey(Path("set"), None, CLASSES, looks)


def changed(survey: Survey, **changes: dict[int, object]) -> Survey:
    looks = list(survey.looks)
    for key, places in changes.items():
        for place, value in places.items():
            looks[place] = replace(looks[place], **{key: value})
    return replace(survey, looks=tuple(looks))


def found(survey: Survey) -> dict[str, Finding]:
    findings = examine(survey).findings
    assert len({finding.kind for finding in findings}) == len(findings)
    return {finding.kind: finding for finding in findings}


def test_nothing_to_find():
    answer = examine(looked(*[MIXED] * 4))
    assert answer.findings == ()
    assert answer.facts["images"] == answer.facts["masks"] == answer.facts["usable"] == 4
    assert (answer.facts["nearest"], answer.facts["void_values"], answer.facts["void_share"]) == (False, [], 0)


@pytest.mark.parametrize(
    "kind",
    ["broken_image", "broken_mask", "missing_mask", "double_mask", "double_name", "broken_line", "size_mismatch",
     "turned_photo", "mixed_values", "color_confusion", "speckled_mask"],
)  # fmt: skip
def test_faults_are_left_out_with_what_was_seen(kind):
    survey = changed(looked(*[MIXED] * 9), fault={3: Fault(kind, "this was seen"), 5: Fault(kind, "and that")})
    (finding,) = found(survey).values()
    assert (finding.kind, finding.ids, finding.gravity) == (kind, ("3", "5"), KINDS[kind].level)
    assert dict(finding.notes) == {"3": "this was seen", "5": "and that"}
    assert set(finding.drop) == {"3", "5"}
    assert finding.drop["3"].endswith("this was seen")
    assert finding.summary.startswith("2 ")
    assert examine(survey).facts["usable"] == 7


def test_values_that_are_no_class_become_void_where_they_are_few():
    faults = {2: Fault("unknown_label", "value 200", (200,)), 4: Fault("unknown_label", "a picture?")}
    survey = changed(looked(*[MIXED] * 9), fault=faults)
    assert dict(found(survey)["unknown_label"].drop) == {"4": "a picture?"}
    assert examine(survey).facts["void_values"] == [200]


def test_soft_masks_are_read_by_the_nearest_class_where_that_is_sure():
    soft = {2: Fault("soft_mask", "soft")}
    three = changed(looked(*[MIXED] * 9), fault=soft)
    assert set(found(three)["soft_mask"].drop) == {"2"}
    two = replace(three, classes=ClassSet(NAMES[:2], default_colors(2)))
    assert not found(two)["soft_mask"].drop
    assert examine(two).facts["nearest"]
    most = changed(looked(*[MIXED] * 9), fault=dict.fromkeys(range(8), soft[2]))
    assert not found(most)["soft_mask"].drop


def test_masks_without_content():
    void, sky, rock = np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), np.full((2, 2), 2, np.uint8)
    mostly = np.array([[0, 255], [255, 255]], dtype=np.uint8)
    half = np.array([[0, 1], [255, 255]], dtype=np.uint8)
    told = found(looked(MIXED, void, sky, rock, sky, mostly, half))
    assert told["empty_mask"].ids == ("1",)
    assert told["constant_mask"].ids == ("3", "2", "4", "5")  # the rarest class first
    assert told["constant_mask"].summary == "4 masks of 7 of one class only: 3 of 'sky', 1 of 'rock'."
    assert dict(told["much_void"].notes) == {"5": "75% void"}
    facts = examine(looked(MIXED, mostly)).facts
    assert facts["void_share"] == 3 / 8
    assert {finding.gravity for finding in told.values()} == {"look"}


def test_one_class_in_all_is_no_constant_mask():
    survey = looked(*[np.zeros((2, 2), np.uint8)] * 3)
    assert found(replace(survey, classes=ClassSet(("all",), default_colors(1)))) == {}


def test_mixtures():
    survey = looked(*[MIXED] * 9)
    mixed = changed(survey, channels={1: 1, 2: 1, 4: 4}, depth={3: "uint16"}, size_px={5: (8, 12), 6: None})
    told = found(mixed)
    assert told["mixed_channels"].ids == ("4", "1", "2")  # the rarest first
    assert told["mixed_channels"].summary == "3 kinds among 8 images: 5 colour, 2 gray, 1 colour with transparency."
    assert told["mixed_channels"].groups == (("0", "3", "5", "7", "8"), ("1", "2"), ("4",))
    assert dict(told["mixed_depths"].notes) == {"3": "with 16 bits"}
    assert dict(told["mixed_sizes"].notes) == {"5": "of 12 x 8 pixels"}
    assert examine(mixed).facts["channels"] == {"3": 6, "1": 2, "4": 1}
    assert examine(mixed).facts["sizes"][1] == {"rows": 8, "columns": 12, "images": 1}
    assert found(changed(survey, size_px={5: (8, 11)})) == {}  # not so very different


def test_a_card_by_the_facts_can_be_read(tmp_path):
    """Left out, voided or read by the nearest class: nothing stops a training any more."""
    root = write_terrain(tmp_path / "set", images=16, size=(32, 48), layout="pairs")
    (root / "classes.txt").unlink()
    masks = [root / f"masks/terrain_{place:04d}.png" for place in range(16)]
    for place, path in enumerate(masks):
        black = (np.array(Image.open(path)) > 1).astype(np.uint8) * 255
        if place == 2:
            black[:6, :6] = 90
        picture = Image.fromarray(black)
        picture = picture.resize((29, 19), Image.Resampling.BILINEAR).resize((48, 32)) if place == 5 else picture
        (picture.resize((24, 16)) if place == 7 else picture).save(path)
    masks[9].unlink()
    masks[10].write_bytes(masks[10].read_bytes()[:60])
    shutil.copy(masks[0], root / "masks" / "terrain_0000_mask.png")
    survey = take_survey(root, progress=False)
    answer = examine(survey)
    drop = {name: reason for finding in answer.findings for name, reason in finding.drop.items()}
    assert set(drop) == {f"terrain_{place:04d}" for place in (0, 7, 9, 10)}
    assert survey.source is not None
    tree = survey.source.as_card()
    tree |= {"dropped": drop, "nearest": answer.facts["nearest"]}
    tree["void_values"] = [*tree["void_values"], *answer.facts["void_values"]]
    write_card(tmp_path / "clean.yaml", tree)
    source = open_source(tmp_path / "clean.yaml")
    assert len(source.samples) == 12
    labels = {sample.id: set(np.unique(source.read(sample)[1])) for sample in source.samples}
    assert 255 in labels["terrain_0002"]
    assert all(found <= {0, 1, 255} for found in labels.values())
