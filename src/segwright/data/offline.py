"""Augmented copies on disk: training images and their masks, changed by the same engine as in training.

    OUT/data.yaml           a card: `segwright train OUT/data.yaml` just works
    OUT/manifest.csv        image, mask, split, group, original, parameters (as JSON)
    OUT/images, OUT/masks   originals as the training sees them, and copies as `<id>.copy<number>`
    OUT/contact-sheet.png   originals and copies side by side, with their masks

A copy belongs to the group of its original, so that no later division parts the two. Only images of the training side
are copied. Images keep their size and bit depth; masks hold labels 0..K-1 and 255 for void. All is written under a
temporary name and renamed at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from segwright.augment import Draw, Policy, augment_on_cpu, draw
from segwright.data.contact_sheet import ContactSheet
from segwright.data.new_set import Originals, counted_bar, new_folder, write_pair, write_sheet, write_tables
from segwright.data.pack import Pack
from segwright.errors import DataError
from segwright.types import ImageArray, MaskArray

TRIES = 20
"""A copy that lost all pixels of the classes it was made for is drawn again, at most so often."""

_ORDER, _CHANGE = 0, 1

COLUMNS = ("original", "parameters")
"""What the manifest tells of a copy beside its image, mask, side and group."""


@dataclass(frozen=True)
class Copies:
    """What was written.

    Attributes:
        folder: the new data set.
        card: its card.
        copies: how many copies.
        copied: how many different images they are of.
        originals: how many originals were written again.
    """

    folder: Path
    card: Path
    copies: int
    copied: int
    originals: int


def write_copies(
    originals: Originals,
    out: Path,
    *,
    count: int,
    policy: Policy,
    only_classes: Sequence[str] = (),
    seed: int = 0,
    copies_only: bool = False,
    progress: bool = True,
) -> Copies:
    """Write copies of training images, by default with all originals as a whole data set.

    Args:
        originals: the images.
        out: a new folder.
        count: how many copies; the images to copy take turns, in random order.
        policy: how they are changed.
        only_classes: copy only images that hold one of these; the copies hold one too, where 20 tries allow it.
        seed: decides which images are copied first and how each copy is changed.
        copies_only: leave the originals out.
        progress: show a bar.

    Raises:
        DataError: there is no image to copy.
        OutputError: the folder is there already, or the disk is full.
    """
    jobs = _jobs(_to_copy(originals, only_classes), count=count, seed=seed)
    kept = [] if copies_only else [i for i, name in enumerate(originals.pack.ids) if name in originals.split]
    labels = np.array([originals.classes.index(name) for name in only_classes], dtype=np.int64)
    first = _first_number(originals.pack)
    with new_folder(out) as fresh:
        with counted_bar(progress) as bar:
            rows: list[Sequence[Any]] = [
                (*originals.write(i, fresh), "", "") for i in bar.track(kept, description="originals")
            ]
            copies = _copies(originals.pack, jobs, policy=policy, labels=labels, seed=seed)
            sheet = ContactSheet(originals.classes.palette(), count=len(jobs))
            for copy in bar.track(copies, total=len(jobs), description="copies"):
                rows.append(_write_copy(originals, copy, fresh, number=first + copy.number))
                sheet.offer(copy.number, _pair(originals.pack, copy.of), (copy.image, copy.mask))
        write_tables(fresh, rows, more=COLUMNS, originals=originals)
        write_sheet(fresh, sheet)
    return Copies(out, out / "data.yaml", len(jobs), len(set(jobs)), len(kept))


def _to_copy(originals: Originals, only_classes: Sequence[str]) -> Int[np.ndarray, " M"]:
    """Positions of the labelled training images, of those alone that hold one of some classes where any is named.

    Raises:
        DataError: there is none.
        RecipeError: there is no such class.
    """
    pack, labels = originals.pack, [originals.classes.index(name) for name in only_classes]
    rows = [i for i, name in enumerate(pack.ids) if originals.split.get(name) == "train" and pack.has_mask[i]]
    chosen = np.array(rows, dtype=np.int64)
    if labels:
        chosen = chosen[(pack.class_pixels[chosen][:, labels] > 0).any(axis=1)]
    if not len(chosen):
        holding = f" that holds {' or '.join(only_classes)}" if labels else ""
        raise DataError(f"there is no labelled training image{holding}", mend="name other classes, or divide anew")
    return chosen


def _first_number(pack: Pack) -> int:
    """Of a copy: above those of copies that are among the originals."""
    found = (_COPY.search(name) for name in pack.ids)
    return max((int(number[1]) + 1 for number in found if number), default=0)


def _jobs(chosen: Int[np.ndarray, " M"], *, count: int, seed: int) -> list[int]:
    """The original of each copy: pass after pass over all of them, each in an order of its own."""
    rng = np.random.default_rng([seed, _ORDER])
    passes = [rng.permutation(chosen) for _ in range(-(-count // len(chosen)))]
    return [int(i) for i in np.concatenate(passes)[:count]]


_COPY = re.compile(r"\.copy(\d+)$")


@dataclass(frozen=True)
class _Copy:
    """One copy: its number, the position of its original, its pixels, and how it was made."""

    number: int
    of: int
    image: ImageArray
    mask: MaskArray
    told: dict[str, Any]


def _copies(
    pack: Pack, jobs: Sequence[int], *, policy: Policy, labels: Int[np.ndarray, " L"], seed: int
) -> Iterator[_Copy]:
    for number, i in enumerate(jobs):
        copy = None
        for attempt in range(TRIES):
            copy = _copy(pack, i, policy=policy, number=number, seed=(seed, _CHANGE, number, attempt))
            if not len(labels) or np.isin(copy.mask, labels).any():
                break
        assert copy is not None, "it is tried at least once"
        yield copy


def _copy(pack: Pack, i: int, *, policy: Policy, number: int, seed: tuple[int, ...]) -> _Copy:
    size, (image, mask) = pack.sizes[i : i + 1], _pair(pack, i)
    crop_px = (int(size[0, 0]), int(size[0, 1]))
    rng = np.random.default_rng(list(seed))
    parameters = draw(policy, size, crop_px=crop_px, channels=pack.channels, rng=rng)
    images, masks = augment_on_cpu([image], [mask], parameters, crop_px=crop_px)
    assert masks is not None, "masks were given"
    told = {"seed": list(seed), **_told(parameters)}
    return _Copy(number, i, images[0].numpy(), masks[0].numpy().astype(np.uint8), told)


def _told(parameters: Draw) -> dict[str, Any]:
    """What was done to one image, rounded for reading; with seed and policy it can be done again exactly."""
    color, distortion = parameters.color, parameters.distortion
    told: dict[str, Any] = {"matrix": np.round(parameters.matrices[0], 6).tolist()}
    if distortion is not None:
        told["distortion_reach_px"] = np.round(distortion.reach_px()[0], 3).tolist()
    for name in ("gain", "offset", "gamma", "mixing", "blur_sigma_px", "noise"):
        values = getattr(color, name)
        if values is not None and not color.changes_nothing:
            told[name] = np.round(values[0], 6).tolist()
    return told


def _write_copy(originals: Originals, copy: _Copy, folder: Path, *, number: int) -> Sequence[Any]:
    original = originals.pack.ids[copy.of]
    name = f"{original}.copy{number:05d}"
    places = write_pair(folder, name, (copy.image, copy.mask), classes=originals.classes)
    return *places, "train", originals.group(copy.of), original, json.dumps(copy.told)


def _pair(pack: Pack, i: int) -> tuple[ImageArray, MaskArray]:
    mask = pack.mask(i)
    assert mask is not None, "only labelled images are copied"
    return pack.image(i), mask
