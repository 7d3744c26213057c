"""Masks that can teach nothing are refused, and those that are of no use are named."""

from __future__ import annotations

import numpy as np
import pytest

from segwright.data.pack import Pack, pack_arrays
from segwright.errors import DataError
from segwright.training.learnable import check_labels
from segwright.types import ClassSet, SplitName

CLASSES = ClassSet(("sky", "soil", "rock"), ((0, 0, 0), (9, 0, 0), (0, 9, 0)))
SPLIT: dict[str, SplitName] = {"a": "train", "b": "train", "c": "val"}


def pack(a: list[int], b: list[int], c: list[int]) -> Pack:
    """Three images of four pixels, whose masks hold the given labels."""
    masks = [np.array([labels], dtype=np.uint8) for labels in (a, b, c)]
    return pack_arrays([np.zeros((1, 1, 4), np.uint8)] * 3, masks, ids=["a", "b", "c"])


def test_whole_masks_need_no_word() -> None:
    assert check_labels(pack([0, 1, 2, 255], [0] * 4, [1] * 4), SPLIT, classes=CLASSES) == ()


def test_what_is_of_no_use_is_named() -> None:
    notes = check_labels(pack([0, 1, 0, 255], [255] * 4, [2, 2, 2, 2]), SPLIT, classes=CLASSES)
    assert notes == ("1 training masks hold nothing that counts (void or ignored): b", "no training mask holds 'rock'")


@pytest.mark.parametrize(
    ("labels", "ignored", "said"),
    [
        (([255] * 4, [255] * 4, [0] * 4), (), "no training mask holds a class that counts: .* as in 'a'"),
        (([0, 1, 2, 0], [0] * 4, [255] * 4), (), "no validation mask holds a class that counts: .* as in 'c'"),
        (([1] * 4, [1, 255, 1, 1], [0] * 4), (), "one class only, 'soil'"),
        (([0] * 4, [0] * 4, [1] * 4), (0,), "no training mask"),
        (([0, 1, 2, 1], [0] * 4, [0] * 4), (0,), "no validation mask"),
    ],
)
def test_what_cannot_be_learnt_is_refused(labels: tuple, ignored: tuple[int, ...], said: str) -> None:
    classes = ClassSet(CLASSES.names, CLASSES.colors, ignore_in_loss=ignored, ignore_in_score=ignored)
    with pytest.raises(DataError, match=said):
        check_labels(pack(*labels), SPLIT, classes=classes)
