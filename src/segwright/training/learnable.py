"""Whether the masks have something to teach: pixels that count, of two classes at least, on both sides of the split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from segwright.data.pack import Pack
from segwright.data.sources.listing import some
from segwright.errors import DataError
from segwright.types import ClassSet, SplitName


def check_labels(pack: Pack, split: Mapping[str, SplitName], *, classes: ClassSet) -> tuple[str, ...]:
    """Refuse masks from which nothing can be learnt or scored.

    Args:
        pack: the images.
        split: side of each id.
        classes: with the rules of the run: an ignored class counts nowhere, as void does.

    Returns:
        Sentences on masks and classes that are of no use.

    Raises:
        DataError: no training or no validation mask holds a class that counts, or all training masks hold one class.
    """
    notes: list[str] = []
    rules: tuple[tuple[SplitName, str, tuple[int, ...]], ...] = (
        ("train", "training", classes.ignore_in_loss), ("val", "validation", classes.ignore_in_score),
    )  # fmt: skip
    for side, word, ignored in rules:
        rows = [i for i, name in enumerate(pack.ids) if split.get(name) == side and pack.has_mask[i]]
        if not rows:  # the validation side of a refit
            continue
        pixels = pack.class_pixels[rows, : classes.num_classes]
        counting = np.delete(pixels, ignored, axis=1).sum(axis=1)
        empty = [pack.ids[i] for i, counted in zip(rows, counting, strict=True) if counted == 0]
        if len(empty) == len(rows):
            raise DataError(
                f"no {word} mask holds a class that counts: all pixels are void or ignored, as in '{empty[0]}'",
                mend="check void_values, mask_values and the classes that are ignored",
            )
        if empty:
            notes.append(f"{len(empty)} {word} masks hold nothing that counts (void or ignored): {some(empty)}")
        if side == "train":
            notes += _unseen(pixels.sum(axis=0), classes)
    return tuple(notes)


def _unseen(pixels: np.ndarray, classes: ClassSet) -> list[str]:
    """Classes without a training pixel, in words."""
    seen = [classes.names[k] for k in np.flatnonzero(pixels)]
    if len(seen) < 2:
        raise DataError(
            f"all training masks hold one class only, '{seen[0]}'",
            mend="check mask_values and the split: a model needs two classes to tell apart",
        )
    unseen = [name for k, name in enumerate(classes.names) if not pixels[k]]
    return [f"no training mask holds {some([repr(name) for name in unseen])}"] if unseen else []
