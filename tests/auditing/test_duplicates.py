"""Copies, crops and neighbours: planted ones are found, named and told apart; look-alikes are none."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.auditing.duplicates import examine, fingerprint
from segwright.auditing.findings import Answer
from segwright.auditing.overlaps import Pair, find_pairs, grouped, verified
from segwright.auditing.survey import Look, Survey, take_survey


def scene(seed: int, *, rows: int = 200, columns: int = 300) -> np.ndarray:
    """A picture of its own: soft ground with blobs and lines, (3, rows, columns)."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(
        rng.integers(0, 256, (9, 13, 3), dtype=np.uint8), (columns, rows), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(60):
        x, y = int(rng.integers(0, columns)), int(rng.integers(0, rows))
        color = [int(value) for value in rng.integers(0, 256, 3)]
        if rng.random() < 0.5:
            cv2.circle(picture, (x, y), int(rng.integers(2, 14)), color, -1)
        else:
            cv2.line(picture, (x, y), (x + int(rng.integers(-40, 40)), y + int(rng.integers(-40, 40))), color, 2)
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def recompressed(image: np.ndarray, *, cut: float) -> np.ndarray:
    """Stored anew as JPEG 70, without a border of `cut` of each side."""
    rows, columns = image.shape[1:]
    top, left = round(cut * rows / 2), round(cut * columns / 2)
    stream = io.BytesIO()
    inner = image[:, top : rows - top, left : columns - left].transpose(1, 2, 0)
    Image.fromarray(inner).save(stream, format="JPEG", quality=70)
    return np.ascontiguousarray(np.asarray(Image.open(stream)).transpose(2, 0, 1))


def survey_of(images: dict[str, np.ndarray], sides: dict[str, str] | None = None, *, name: str = "photos") -> Survey:
    """What a survey keeps of some pictures."""
    from segwright.data.packing import pixel_digest
    from segwright.types import ClassSet

    looks = tuple(
        Look(key, f"{key}.png", f"{key}.png", split=(sides or {}).get(key), image_digest=pixel_digest(image),
             mask_digest=key, prints=fingerprint(image))
        for key, image in images.items()
    )  # fmt: skip
    return Survey(Path(name), None, ClassSet(("a", "b"), ((0, 0, 0), (1, 1, 1))), looks)


def found(answer: Answer, kind: str) -> dict[str, str]:
    """Notes of a finding by id; empty where there is none."""
    return {
        name: finding.notes.get(name, "") for finding in answer.findings if finding.kind == kind for name in finding.ids
    }


@pytest.mark.parametrize("cut", [0.0, 0.05])
def test_a_copy_stored_anew_is_a_copy(cut: float) -> None:
    image = scene(0)
    pair = verified(fingerprint(image), fingerprint(recompressed(image, cut=cut)), 0, 1)
    assert pair is not None
    assert pair.is_copy


@given(left=st.integers(0, 120), top=st.integers(0, 60))
def test_crops_of_one_photo_overlap_and_are_no_copies(left: int, top: int) -> None:
    image = scene(1)
    a, b = image[:, :140, :180], np.ascontiguousarray(image[:, top : top + 140, left : left + 180])
    pair = verified(fingerprint(np.ascontiguousarray(a)), fingerprint(b), 0, 1)
    share = (180 - left) * (140 - top) / (180 * 140)
    if share > 0.4:
        assert pair is not None
        assert pair.shared[0] == pytest.approx(share, abs=0.08)
        assert pair.is_copy == (share > 0.8) or abs(share - 0.8) < 0.08


def test_other_pictures_of_one_kind_make_no_pair() -> None:
    assert find_pairs([fingerprint(scene(seed)) for seed in range(12)], sides=[None] * 12) == []
    flat = [np.full((3, 64, 64), level, np.uint8) for level in (10, 60, 200)]
    noise = [np.random.default_rng(seed).integers(0, 256, (3, 64, 64), dtype=np.uint8) for seed in range(6)]
    assert find_pairs([fingerprint(image) for image in (*flat, *noise)], sides=[None] * 9) == []


def test_copies_crops_and_leaks_are_told_apart() -> None:
    images = {f"p{seed}": scene(seed) for seed in range(8)}
    images["v0"] = recompressed(images["p0"], cut=0.05)  # a copy on the other side
    images["v1"] = np.ascontiguousarray(scene(1)[:, 20:, 100:])  # a crop of another
    images["again"] = images["p2"].copy()
    sides = {name: "val" if name.startswith("v") else "train" for name in images}
    answer = examine(survey_of(images, sides))
    assert set(found(answer, "leak")) == {"v0"}
    assert found(answer, "leak")["v0"] == "in val; is a copy of p0 in train"
    assert found(answer, "neighbours") == {"v1": "in val; shows the same place as p1 in train"}
    assert set(found(answer, "copies")) == {"p0", "v0", "p2", "again"}
    assert found(answer, "copies")["again"] == "the same picture as p2, but with another mask"
    assert found(answer, "copies")["p0"] == "a changed copy of v0"
    groups = answer.facts["groups"]
    assert groups["v0"] == groups["p0"] != groups["p2"] == groups["again"]
    assert "p5" not in groups


def test_exact_copies_with_one_mask_are_dropped_and_test_pictures_stay() -> None:
    images = {"a": scene(0), "b": scene(0), "c": scene(1)}
    survey = survey_of(images, {"a": "train", "b": "test", "c": "train"})
    survey = replace(survey, looks=tuple(replace(look, mask_digest="m") for look in survey.looks))
    answer = examine(survey)
    (copies,) = (finding for finding in answer.findings if finding.kind == "copies")
    assert copies.drop == {"a": "copy of b"}
    assert copies.gravity == "look"


def test_other_test_data_are_compared_too() -> None:
    answer = examine(survey_of({"a": scene(0), "b": scene(1)}), test=survey_of({"a": scene(5), "x": scene(1)}))
    assert found(answer, "leak") == {"x": "in test data; is a copy of b in the training data"}
    assert answer.facts["groups"] == {}


def test_neighbours_on_the_own_side_do_not_hide_those_on_another() -> None:
    wide = scene(3, columns=700)
    images = {f"f{i:03d}": np.ascontiguousarray(wide[:, :, 4 * i : 4 * i + 240]) for i in range(60)}
    sides = {name: "val" if i < 50 else "train" for i, name in enumerate(images)}
    beside = {
        **found(examine(survey_of(images, sides)), "neighbours"),
        **found(examine(survey_of(images, sides)), "leak"),
    }
    assert {f"f{i:03d}" for i in range(30, 50)} <= set(beside)


@given(chain=st.integers(2, 60), largest=st.integers(2, 20))
def test_no_chain_of_neighbours_swallows_everything(chain: int, largest: int) -> None:
    pairs = [Pair(i, i + 1, 10, 0.6 + 0.3 * ((i * 7) % 10) / 10, (0.5, 0.5)) for i in range(chain - 1)]
    numbers, apart = grouped(chain, pairs, largest=largest)
    sizes = np.unique(numbers, return_counts=True)[1]
    assert sizes.max() <= largest
    assert apart == sum(numbers[pair.first] != numbers[pair.second] for pair in pairs)
    copies = [replace(pair, likeness=1.0, shared=(1.0, 1.0)) for pair in pairs]
    assert len(set(grouped(chain, copies, largest=largest)[0])) == 1


def test_a_folder_from_end_to_end(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(6):
        image = scene(i % 5, rows=96, columns=128)
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "images" / f"{i}.png")
        mask = (np.arange(96 * 128).reshape(96, 128) % (i + 2) > 0).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    answer = examine(take_survey(tmp_path, progress=False))
    assert found(answer, "copies") == {"0": "", "5": "the same picture as 0, but with another mask"}
    assert answer.facts["exact_copies"] == 1
