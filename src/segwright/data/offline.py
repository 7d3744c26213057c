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
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segwright.augment import Draw, Policy, augment_on_cpu, draw
from segwright.data.card import RULES, write_card
from segwright.data.contact_sheet import ContactSheet
from segwright.data.pack import Pack
from segwright.errors import DataError, OutputError
from segwright.files import atomic, confined, save_image, sync_folder, write_csv, write_mask
from segwright.pictures import to_png
from segwright.types import ClassSet, ImageArray, MaskArray, SplitName

TRIES = 20
"""A copy that lost all pixels of the classes it was made for is drawn again, at most so often."""

_ORDER, _CHANGE = 0, 1

HEADINGS = ("image", "mask", "split", "group", "original", "parameters")


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


@dataclass(frozen=True)
class Originals:
    """The images that are there.

    Attributes:
        pack: all of them.
        classes: of their masks.
        split: side of each id; ids that stand on no side are left out.
        groups: of each image of the pack, or None.
    """

    pack: Pack
    classes: ClassSet
    split: Mapping[str, SplitName]
    groups: Sequence[str | None]

    @cached_property
    def first_number(self) -> int:
        """Of a copy: above those of copies that are among the originals."""
        found = (_COPY.search(name) for name in self.pack.ids)
        return max((int(number[1]) + 1 for number in found if number), default=0)

    def group(self, i: int) -> str:
        """An image without a group is its own."""
        return self.groups[i] or self.pack.ids[i]

    def to_copy(self, only_classes: Sequence[str]) -> Int[np.ndarray, " M"]:
        """Positions of the labelled training images, of those alone that hold one of some classes where any is named.

        Raises:
            DataError: there is none.
            RecipeError: there is no such class.
        """
        labels = [self.classes.index(name) for name in only_classes]
        rows = [i for i, name in enumerate(self.pack.ids) if self.split.get(name) == "train" and self.pack.has_mask[i]]
        chosen = np.array(rows, dtype=np.int64)
        if labels:
            chosen = chosen[(self.pack.class_pixels[chosen][:, labels] > 0).any(axis=1)]
        if not len(chosen):
            holding = f" that holds {' or '.join(only_classes)}" if labels else ""
            raise DataError(f"there is no labelled training image{holding}", mend="name other classes, or divide anew")
        return chosen


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
    if out.exists():
        raise OutputError("is there already", mend="name a new folder", file=out)
    jobs = _jobs(originals.to_copy(only_classes), count=count, seed=seed)
    kept = [] if copies_only else [i for i, name in enumerate(originals.pack.ids) if name in originals.split]
    labels = np.array([originals.classes.index(name) for name in only_classes], dtype=np.int64)
    fresh = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name[:60]}.", suffix=".part"))
        fresh.chmod(0o755)
        with _bar(progress) as bar:
            rows = [_write_original(originals, i, fresh) for i in bar.track(kept, description="originals")]
            copies = _copies(originals.pack, jobs, policy=policy, labels=labels, seed=seed)
            sheet = ContactSheet(originals.classes.palette(), count=len(jobs))
            for copy in bar.track(copies, total=len(jobs), description="copies"):
                rows.append(_write_copy(originals, copy, fresh))
                sheet.offer(copy.number, _pair(originals.pack, copy.of), (copy.image, copy.mask))
        write_csv(fresh / "manifest.csv", [HEADINGS, *rows])
        write_card(fresh / "data.yaml", _card(originals.classes))
        with atomic(fresh / "contact-sheet.png") as stream:
            stream.write(to_png(sheet.picture()))
        os.sync()  # once for thousands of files, each of which would wait for the disk
        fresh.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        mend = "free some space or choose another folder"
        raise OutputError(f"cannot be written ({error.strerror or error})", mend=mend, file=out) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)
    return Copies(out, out / "data.yaml", len(jobs), len(set(jobs)), len(kept))


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not shown, transient=True, console=Console(stderr=True))


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


def _write_original(originals: Originals, i: int, folder: Path) -> Sequence[Any]:
    """Write a picture and its mask as they are; their line of the manifest."""
    name, mask = originals.pack.ids[i], originals.pack.mask(i)
    image = save_image(confined(folder, f"images/{name}"), originals.pack.image(i), sync=False)
    place = "" if mask is None else f"masks/{name}.png"
    if mask is not None:
        write_mask(confined(folder, place), mask, originals.classes.palette(), sync=False)
    return image.relative_to(folder).as_posix(), place, originals.split[name], originals.group(i), "", ""


def _write_copy(originals: Originals, copy: _Copy, folder: Path) -> Sequence[Any]:
    original = originals.pack.ids[copy.of]
    name = f"{original}.copy{copy.number + originals.first_number:05d}"
    image = save_image(confined(folder, f"images/{name}"), copy.image, sync=False)
    write_mask(confined(folder, f"masks/{name}.png"), copy.mask, originals.classes.palette(), sync=False)
    place = image.relative_to(folder).as_posix()
    return place, f"masks/{name}.png", "train", originals.group(copy.of), original, json.dumps(copy.told)


def _pair(pack: Pack, i: int) -> tuple[ImageArray, MaskArray]:
    mask = pack.mask(i)
    assert mask is not None, "only labelled images are copied"
    return pack.image(i), mask


def _card(classes: ClassSet) -> dict[str, Any]:
    rules = {rule: [classes.names[label] for label in getattr(classes, rule)] for rule in RULES}
    return {
        "source": "manifest.csv",
        "format": "manifest",
        "classes": list(classes.names),
        "colors": [list(color) for color in classes.colors],
        "mask_values": list(range(classes.num_classes)),
        **rules,
    }
