"""A data set with pseudo-labels: the labelled images of a run, and those that a model has labelled, to train on.

    OUT/data.yaml           a card
    OUT/manifest.csv        image, mask, split, group, original, model, share_sure, mean_confidence
    OUT/images, OUT/masks   the run's own as they are; the others as `pseudo/<id>`, 255 (void) where the model is unsure
    OUT/left-out.csv        images that were not taken, and why
    OUT/contact-sheet.png   side by side: all that the model says, and what of it is kept

Only the training side grows. Validation and test images stand there as they were, with the labels that people gave.
Unlabelled images of the run are left out: a pseudo-labelled one may be one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from segwright.data.contact_sheet import ContactSheet
from segwright.data.new_set import Originals, counted_bar, new_folder, write_pair, write_sheet, write_tables
from segwright.data.pack import Pack
from segwright.errors import DataError
from segwright.files import write_csv
from segwright.metrics import count_labels
from segwright.types import ImageArray, MaskArray

COLUMNS = ("original", "model", "share_sure", "mean_confidence")
"""What the manifest tells of an image beside its image, mask, side and group."""


@dataclass(frozen=True)
class PseudoLabel:
    """What a model says of an image that nobody has labelled.

    Attributes:
        number: position among the images that were asked for.
        id: of the image in its source.
        original: where the image comes from.
        group: that it belongs to, or None.
        image: as it is.
        pred: the label of every pixel.
        mask: the same, 255 where the model is unsure.
        mean_confidence: the probability of the likeliest class, averaged over the pixels.
    """

    number: int
    id: str
    original: str
    group: str | None
    image: ImageArray
    pred: MaskArray
    mask: MaskArray
    mean_confidence: float

    @property
    def share_sure(self) -> float:
        """Of the pixels."""
        return 1.0 - float(count_labels(self.mask)[255]) / self.mask.size


@dataclass(frozen=True)
class PseudoSet:
    """What was written.

    Attributes:
        folder: the new data set.
        card: its card.
        taken: how many pseudo-labelled images stand in it.
        originals: how many labelled ones.
        left_out: why an image was not taken, by id.
        kept_by_class: of the pixels that the model gave each class, the share that is kept; None of a class that it
            saw nowhere.
        notes: what is not known of the model, in sentences.
        start_from: the run or bundle that a student starts from, as the model's own run did; None for none.
    """

    folder: Path
    card: Path
    taken: int
    originals: int
    left_out: dict[str, str]
    kept_by_class: dict[str, float | None]
    notes: tuple[str, ...] = ()
    start_from: Path | None = None


@dataclass
class _Tally:
    """What becomes of the images, as they come."""

    left_out: dict[str, str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    said: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    kept: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))


def write_pseudo_set(
    originals: Originals,
    labels: Iterable[PseudoLabel],
    out: Path,
    *,
    model: str,
    expected: int,
    left_out: dict[str, str],
    least_share: float = 0.5,
    progress: bool = True,
) -> PseudoSet:
    """Write the labelled images of a run and pseudo-labelled ones as one data set.

    Args:
        originals: the images of the run.
        labels: of the other images, as they come.
        out: a new folder.
        model: that labelled them, for the manifest.
        expected: how many labels will come.
        left_out: why other images were left out before, by id; more are added.
        least_share: images of which the model is sure of less than this share of the pixels are left out.
        progress: show a bar.

    Raises:
        DataError: no image is left.
        OutputError: the folder is there already, or the disk is full.
    """
    pack, classes = originals.pack, originals.classes
    kept = [i for i, name in enumerate(pack.ids) if name in originals.split and pack.has_mask[i]]
    tally, prefix = _Tally(left_out=left_out), _free_prefix(pack)
    sheet = ContactSheet(classes.palette(), count=expected)
    with new_folder(out) as fresh:
        with counted_bar(progress) as bar:
            for label in bar.track(labels, total=expected, description="labelling"):
                _take(label, tally, least_share=least_share)
                if label.id in tally.left_out:
                    continue
                name = f"{prefix}/{label.id}"
                places = write_pair(fresh, name, (label.image, label.mask), classes=classes)
                numbers = (f"{label.share_sure:.4f}", f"{label.mean_confidence:.4f}")
                tally.rows.append((*places, "train", label.group or name, label.original, model, *numbers))
                sheet.offer(label.number, (label.image, label.pred), (label.image, label.mask))
            if not tally.rows:
                last = next((f"; of '{name}': {why.rstrip('.')}" for name, why in reversed(tally.left_out.items())), "")
                mend = "lower --confidence or --least-share, or train a better model first"
                raise DataError(f"no image could be labelled{last}", mend=mend)
            own = [(*originals.write(i, fresh), "", "", "", "") for i in bar.track(kept, description="originals")]
        write_tables(fresh, [*own, *tally.rows], more=COLUMNS, originals=originals)
        write_csv(fresh / "left-out.csv", [("id", "why"), *tally.left_out.items()])
        write_sheet(fresh, sheet)
    shares = {
        name: float(tally.kept[k] / tally.said[k]) if tally.said[k] else None for k, name in enumerate(classes.names)
    }
    return PseudoSet(out, out / "data.yaml", len(tally.rows), len(own), tally.left_out, shares)


def _take(label: PseudoLabel, tally: _Tally, *, least_share: float) -> None:
    """Count the pixels of a label, and leave its image out where the model is sure of too few."""
    tally.said += count_labels(label.pred)
    tally.kept += count_labels(label.mask)
    if label.share_sure < least_share:
        tally.left_out[label.id] = f"the model is sure of {label.share_sure:.0%} of its pixels"


def _free_prefix(pack: Pack) -> str:
    """A folder for the pseudo-labelled images that none of the originals lies in."""
    names = ("pseudo" if number == 1 else f"pseudo-{number}" for number in count(1))
    return next(name for name in names if not any(one.startswith(f"{name}/") for one in pack.ids))
