"""Masks that a model contradicts: planted slips are found, named and ranked first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import softmax

from segwright.auditing import label_noise
from segwright.auditing.label_noise import examine, judge, soft_minimum
from segwright.auditing.opinions import open_opinions, write_opinions
from segwright.auditing.survey import take_survey
from segwright.errors import DataError

CLASSES = ("class 0", "class 1", "class 2")
SIZE = (48, 64)


def truth(rng: np.random.Generator) -> np.ndarray:
    """A floor of class 0 with two blobs."""
    mask = np.zeros(SIZE, dtype=np.uint8)
    for label in (1, 2):
        top, left = rng.integers(6, 24), rng.integers(6, 40)
        mask[top : top + 14, left : left + 16] = label
    return mask


def model_of(mask: np.ndarray, rng: np.random.Generator, *, sureness: float = 2.5) -> np.ndarray:
    """Probabilities of a model that is right with some noise."""
    z = sureness * np.eye(len(CLASSES))[np.minimum(mask, 2)].transpose(2, 0, 1) + rng.normal(0, 0.7, (3, *SIZE))
    return softmax(z, axis=0).astype(np.float32)


def swapped(mask: np.ndarray) -> np.ndarray:
    return np.array([0, 2, 1], dtype=np.uint8)[mask]


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """Forty pictures of which 7 has swapped classes, and 11 a class drawn over by another."""
    rng = np.random.default_rng(0)
    said = []
    for kind in ("images", "masks"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
    for i in range(40):
        mask = truth(rng)
        said.append((f"{i:02d}", model_of(mask, rng)))
        drawn = swapped(mask) if i == 7 else mask.copy()
        if i == 11:
            drawn[mask == 1] = 0
        Image.fromarray(drawn).save(tmp_path / "photos" / "masks" / f"{i:02d}.png")
        picture = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / "images" / f"{i:02d}.png")
    write_opinions(tmp_path / "said.npz", said, classes=CLASSES)
    return tmp_path / "photos", tmp_path / "said.npz"


def test_planted_slips_come_first_and_are_named(data: tuple[Path, Path]) -> None:
    answer = examine(take_survey(data[0], progress=False), data[1], moved=["03"])
    assert answer.facts["ranking"][0] == "03"
    assert set(answer.facts["ranking"][1:3]) == {"07", "11"}
    assert len(answer.facts["ranking"]) == 40
    found = {finding.kind: finding for finding in answer.findings}
    assert found["swapped_classes"].ids == ("07",)
    assert found["swapped_classes"].notes["07"] == "class 1 and class 2"
    assert "11" in found["doubtful_mask"].ids
    assert "is marked class 0 and looks like class 1" in found["doubtful_mask"].notes["11"]


@given(scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_the_soft_minimum_lies_between_minimum_and_mean(scores: list[float]) -> None:
    array = np.array(scores, dtype=np.float32)
    assert array.min() - 1e-6 <= soft_minimum(array) <= array.mean() + 1e-6
    assert soft_minimum(array, temperature=1e-4) == pytest.approx(array.min(), abs=1e-3)


def test_a_mask_of_void_alone_is_not_judged_wrong() -> None:
    probs = model_of(np.zeros(SIZE, np.uint8), np.random.default_rng(0))
    seen = judge(probs, np.full(SIZE, 255, np.uint8), usual=np.full(3, 0.8))
    assert (seen.doubt, seen.swap_gain, seen.region) == (0, 0, 0)


def test_few_images_are_reported_however_odd_all_are(data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNUSUAL", "LEAST_SWAP_GAIN"):
        monkeypatch.setattr(label_noise, name, -1e9)
    answer = examine(take_survey(data[0], progress=False), data[1])
    assert max(len(finding.ids) for finding in answer.findings) <= 6


def test_files_of_other_data_are_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    survey = take_survey(data[0], progress=False)
    probs = np.full((3, 4, 4), 1 / 3, dtype=np.float32)
    write_opinions(tmp_path / "classes.npz", [("00", probs)], classes=("sky", "soil", "rock"))
    write_opinions(tmp_path / "ids.npz", [("zebra", probs)], classes=CLASSES)
    (tmp_path / "text.npz").write_text("no")
    for name, message in (("classes", "other classes"), ("ids", "none of these images"), ("text", "no npz")):
        with pytest.raises(DataError, match=message):
            examine(survey, tmp_path / f"{name}.npz")


def test_probabilities_come_back_but_for_rounding(tmp_path: Path) -> None:
    probs = model_of(truth(np.random.default_rng(2)), np.random.default_rng(3))
    write_opinions(tmp_path / "one.npz", [("a/b", probs)], classes=CLASSES)
    with open_opinions(tmp_path / "one.npz") as opinions:
        assert opinions.ids == ("a/b",)
        np.testing.assert_allclose(opinions.of("a/b"), probs, atol=0.5 / 255 + 1e-6)
        assert opinions.of("a/b").min() > 0
