"""The coding is that of most masks, whatever a few others hold; and the few are told from the many."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.data.sources.detection import detect, glance_at, tally_files
from segwright.data.sources.inspection import Inspection, grain_of, inspect_file, inspect_values
from segwright.data.sources.majority import Agreement, agree
from segwright.errors import MaskError
from segwright.files import write_mask

NUMBERS = np.arange(5, dtype=np.uint8)
BLACK_WHITE = np.array([0, 255], dtype=np.uint8)
COLORS = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 40], [40, 40, 210], [220, 220, 60]], dtype=np.uint8)


def labels(seed: int, *, classes: int = 5, side: int = 48) -> np.ndarray:
    """Smooth patches of classes, each of which touches every other one somewhere."""
    rng = np.random.default_rng(seed)
    fields = [cv2.resize(rng.random((5, 5)), (side, side), interpolation=cv2.INTER_CUBIC) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def smoothed(mask: np.ndarray) -> np.ndarray:
    """As after scaling to two thirds and back."""
    small = cv2.resize(mask, None, fx=0.66, fy=0.66, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, mask.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def through_jpeg(mask: np.ndarray, quality: int = 85) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


def looked(masks: list[np.ndarray]) -> list[Inspection]:
    return [inspect_values(mask, file=f"{place:02d}") for place, mask in enumerate(masks)]


def settled(masks: list[np.ndarray], *, num_classes: int | None = None, **known: object) -> Agreement:
    return agree(looked(masks), num_classes=num_classes, **known)  # type: ignore[arg-type]


def kinds(agreement: Agreement) -> dict[str, str]:
    return {file: odd.kind for file, odd in agreement.odd.items()}


@pytest.mark.parametrize("table", [NUMBERS, BLACK_WHITE, COLORS], ids=["numbers", "black and white", "colours"])
@pytest.mark.parametrize("spoil", [smoothed, through_jpeg])
def test_a_few_soft_masks_change_nothing_and_are_told(table, spoil):
    masks = [table[labels(seed, classes=len(table))] for seed in range(20)]
    plain = settled(masks)
    assert plain.odd == {}
    spoiled = settled([spoil(mask) if place in (3, 11) else mask for place, mask in enumerate(masks)])
    assert spoiled.found.coding == plain.found.coding
    assert kinds(spoiled) == {"03": "soft_mask", "11": "soft_mask"}


@given(st.integers(2, 7), st.integers(0, 10_000), st.sampled_from([1, 9, 36]), st.booleans())
def test_clean_masks_are_read_as_by_detection(classes, seed, step, void):
    masks = [labels(seed + place, classes=classes, side=24) * step for place in range(4)]
    if void:
        masks[0][:6] = 255
    seen = tally_files([glance_at(mask, path=None, file="x") for mask in masks], complete=True)
    if seen.holders.keys() >= {1, 255} or 255 not in seen.holders:  # 0 and 255 alone are another story
        agreement = settled(masks)
        assert agreement.odd == {}
        assert agreement.found == detect(seen, num_classes=None, void_values=(255,))


def test_edges_between_three_classes_run_through_other_classes():
    """No value of a smoothed mask of numbers need be unknown."""
    mask = np.zeros((24, 24), dtype=np.uint8)
    mask[:, 12:] = 4
    masks = [labels(seed) for seed in range(20)]
    told = settled([*masks, cv2.blur(mask, (5, 1))])
    assert kinds(told) == {"20": "soft_mask"}
    assert "of other classes" in told.odd["20"].text


def test_where_most_masks_are_soft_the_peaks_are_the_classes():
    masks = [through_jpeg(BLACK_WHITE[labels(seed, classes=2)]) for seed in range(6)]
    told = settled(masks)
    assert told.found.coding.values == (0, 255)
    assert set(kinds(told).values()) == {"soft_mask"}
    assert settled(masks, num_classes=2, mask_values=(0, 255), nearest=True).odd == {}


def test_a_slip_is_no_class_but_a_rare_class_is_one():
    masks = [labels(seed) for seed in range(30)]
    slip, rare = masks[4].copy(), masks[9].copy()
    slip[4:8, 4:12] = 200
    rare[20:30, 20:30] = 5
    told = settled([slip if place == 4 else rare if place == 9 else mask for place, mask in enumerate(masks)])
    assert told.found.coding.values == (0, 1, 2, 3, 4, 5)
    assert kinds(told) == {"04": "unknown_label"}
    assert told.odd["04"].values == (200,)
    assert "value 200 in 32 pixels" in told.odd["04"].text
    named = settled([slip, rare, *masks[10:]], num_classes=5)
    assert kinds(named) == {"00": "unknown_label", "01": "unknown_label"}


def test_a_class_that_hardly_any_mask_holds_is_no_slip_of_the_only_other_one():
    masks = [np.zeros((64, 64), np.uint8) for _ in range(30)]
    masks[7][3, 3] = 1
    told = settled(masks)
    assert (told.found.coding.values, told.odd) == ((0, 1), {})


def test_more_classes_than_names():
    told = settled([labels(seed) for seed in range(6)], num_classes=4)
    assert told.found.coding.values == (0, 1, 2, 3)
    assert set(kinds(told).values()) == {"unknown_label"}
    with pytest.raises(MaskError, match=r"holds value 0|belongs to no class|values"):
        settled([labels(0, classes=2) + 100], num_classes=2, mask_values=(7, 8))


def test_colours_among_numbers_and_numbers_among_colours():
    numbers, colors = [labels(seed) for seed in range(8)], [COLORS[labels(seed)] for seed in range(8)]
    told = settled([*numbers, colors[0]])
    assert (told.found.coding.kind, kinds(told)) == ("index", {"08": "color_confusion"})
    told = settled([*colors, numbers[0]])
    assert (told.found.coding.kind, kinds(told)) == ("rgb", {"08": "color_confusion"})
    assert told.found.coding.values == settled(colors).found.coding.values


def test_gray_saved_as_colour_is_no_confusion():
    masks = [labels(seed) for seed in range(8)]
    assert settled([*masks[1:], np.repeat(masks[0][..., None], 3, axis=2)]).odd == {}


def test_another_palette(tmp_path):
    looks = []
    for place in range(6):
        table = COLORS[::-1] if place == 2 else COLORS
        write_mask(tmp_path / f"{place}.png", labels(place), table)
        looks.append(inspect_file(tmp_path / f"{place}.png", file=f"{place}"))
    told = agree(looks, num_classes=None)
    assert kinds(told) == {"2": "color_confusion"}
    assert told.found.coding.kind == "index"
    assert told.found.colors == tuple(map(tuple, COLORS.tolist()))


def test_zero_and_one_beside_zero_and_255():
    ones = [labels(seed, classes=2) for seed in range(9)]
    few = settled([*ones, ones[0] * 255, np.zeros((9, 9), np.uint8)])
    assert few.found.coding.values == (0, 1)
    assert kinds(few) == {"09": "mixed_values"}
    many = settled([*(255 * one for one in ones), ones[0]])
    assert many.found.coding.values == (0, 255)
    assert kinds(many) == {"09": "mixed_values"}
    with_void = ones[0].copy()
    with_void[:5] = 255
    assert settled([*ones, with_void]).odd == {}  # one mask holds 0, 1 and 255


def test_speckle_and_pictures_among_masks():
    rng = np.random.default_rng(0)
    masks = [labels(seed) for seed in range(16)]
    photo = cv2.GaussianBlur(rng.integers(0, 256, (48, 48), dtype=np.uint8), (9, 9), 0)
    told = settled([*masks, rng.integers(0, 5, (48, 48), dtype=np.uint8), cv2.normalize(photo, None, 0, 254, 32)])
    assert told.found.coding.values == (0, 1, 2, 3, 4)
    assert kinds(told) == {"16": "speckled_mask", "17": "unknown_label"}
    assert "is it a mask at all" in told.odd["17"].text


def test_broken_files_are_told(tmp_path):
    Image.fromarray(labels(0)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:90])
    looks = [inspect_file(tmp_path / name, file=name) for name in ("whole.png", "cut.png", "gone.png")]
    told = agree(looks, num_classes=None)
    assert kinds(told) == {"cut.png": "broken_mask", "gone.png": "broken_mask"}
    assert told.found.coding.values == (0, 1, 2, 3, 4)
    assert agree(looks[1:], num_classes=3).found.coding.values == (0, 1, 2)


def test_grain_counts_changes_by_hand():
    row = np.array([[0, 0, 1, 3, 3, 0, 2, 0]], dtype=np.uint8)
    grain = grain_of(row)
    # Changes 0|1 1|3 3|0 0|2 2|0; between: the 1 alone; 1, 0 and 2 differ on both sides.
    assert (grain.changes, grain.jumps, grain.between, grain.steps, grain.frayed) == (5 / 8, 5 / 8, 1, 1 / 5, 3 / 5)
    assert grain_of(np.zeros((1, 1), np.uint8)).changes == 0


def test_of_very_many_values_the_commonest_are_kept():
    mask = np.arange(1024, dtype=np.int64).reshape(32, 32)
    mask[:16] = 3
    glance = inspect_values(mask, file="x").glance
    assert len(glance.values) == len(glance.counts) == 256
    assert dict(zip(glance.values, glance.counts, strict=True))[3] == 512
