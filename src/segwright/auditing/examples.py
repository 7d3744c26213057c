"""Small pictures of what an audit found: which images stand for a finding, and how they are kept.

0007.webp       the image                     0007-mask.png    its labels
0007-raw.png    a mask with a fault           0007-pred.png    what a model says
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segwright.auditing.duplicates import TEST
from segwright.auditing.findings import Finding
from segwright.auditing.survey import Look, Survey
from segwright.auditing.verdict import Audit
from segwright.errors import SegwrightError
from segwright.files import atomic, read_image, read_raw_mask, write_mask
from segwright.pictures import as_rgb, to_png, to_webp

PICTURES = 12
"""Pictures of one finding, at most."""

LONGER_SIDE_PX = 320
_OF_ONE_SET = {"shared_mask": 6}
_FEW = {"rare_class": 4}
"""Kinds of which a few pictures say enough."""


@dataclass(frozen=True)
class Place:
    """Where an image of a finding is found again."""

    survey: Survey
    position: int

    @property
    def look(self) -> Look:
        return self.survey.looks[self.position]


@dataclass(frozen=True)
class Examples:
    """The images that stand for findings.

    Attributes:
        places: name of a picture -> its image; that of an image of other test data says so.
        shown: of each finding the names, in sets that stand side by side.
    """

    places: Mapping[str, Place]
    shown: Sequence[Sequence[Sequence[str]]]

    @property
    def described(self) -> dict[str, dict[str, Any]]:
        """For audit.json: where each picture lies and what it is of."""
        return {name: _described(name, place.look, number) for number, (name, place) in enumerate(self.places.items())}


def choose_examples(audited: Audit) -> Examples:
    """The first images of each finding, or some of each of its first sets."""
    own = {look.id: Place(audited.survey, i) for i, look in enumerate(audited.survey.looks)}
    looks = () if audited.test is None else audited.test.looks
    other = {f"{TEST}: {look.id}": Place(audited.test or audited.survey, i) for i, look in enumerate(looks)}
    places = {**own, **other}
    shown = [_shown(finding, places) for finding in audited.findings]
    used = dict.fromkeys(name for sets in shown for members in sets for name in members)
    return Examples({name: places[name] for name in used}, shown)


def write_examples(examples: Examples, folder: Path, *, predictions: Mapping[str, np.ndarray]) -> None:
    """Write the pictures, in place of those of an older audit.

    Args:
        examples: what to show.
        folder: of the pictures.
        predictions: id -> labels (H, W) that a model sees.

    Raises:
        OutputError: they cannot be written.
    """
    for old in folder.glob("[0-9][0-9][0-9][0-9]*.*"):
        old.unlink()

    def write(numbered: tuple[int, Place]) -> None:
        number, place = numbered
        _write_pictures(place, folder / f"{number:04d}", predictions.get(place.look.id))

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, enumerate(examples.places.values())))


def _shown(finding: Finding, places: Mapping[str, Place]) -> list[list[str]]:
    sets: list[list[str]] = []
    left = _FEW.get(finding.kind, PICTURES)
    for members in finding.groups or [(name,) for name in finding.ids]:
        named = [_named(finding, name, first=k == 0, places=places) for k, name in enumerate(members)]
        known = [name for name in named if name in places]
        chosen = _of_all_sides(known, places)[: min(left, _OF_ONE_SET.get(finding.kind, 2))]
        if chosen:
            sets.append(chosen)
            left -= len(chosen)
        if left < (2 if finding.groups else 1):
            break
    return sets


def _named(finding: Finding, name: str, *, first: bool, places: Mapping[str, Place]) -> str:
    """The name of a picture. Two data sets may use one id twice: then the finding tells which is meant."""
    other = f"{TEST}: {name}"
    told = first and finding.notes.get(name, "").startswith(f"in {TEST};")
    meant = told or finding.kind.endswith("_shift") or name not in places
    return other if meant and other in places else name


def _of_all_sides(members: Sequence[str], places: Mapping[str, Place]) -> list[str]:
    """The first of each side of the split, then the others."""
    first: dict[str | None, str] = {}
    for name in members:
        first.setdefault(places[name].look.split, name)
    return [*first.values(), *(name for name in members if name not in first.values())]


def _described(name: str, look: Look, number: int) -> dict[str, Any]:
    return {
        "id": look.id,
        "files": f"examples/{number:04d}",
        "image_file": look.image_file,
        "mask_file": look.mask_file,
        "side": look.split if name == look.id else TEST,
        "size_px": None if look.size_px is None else list(look.size_px),
    }


def _write_pictures(place: Place, stem: Path, pred: np.ndarray | None) -> None:
    """What can be read of an image and its mask, scaled down; labels at the size of the image."""
    image, mask, raw = _readable(place)
    palette = place.survey.classes.palette()
    small = None if image is None else _scaled(as_rgb(image), cv2.INTER_AREA)
    if small is not None:
        _write(stem.with_suffix(".webp"), to_webp(small, quality=85))
        for ending, labels in (("mask", mask), ("pred", pred)):
            if labels is not None:
                fitted = cv2.resize(labels, small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
                write_mask(stem.with_name(f"{stem.name}-{ending}.png"), np.asarray(fitted), palette)
    if raw is not None:
        _write(stem.with_name(f"{stem.name}-raw.png"), to_png(_scaled(_visible(raw), cv2.INTER_NEAREST)))


def _readable(place: Place) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Image, labels where they are as they should be, and else the stored values of the mask."""
    survey, look = place.survey, place.look
    if look.fault is None:
        return *survey.read(place.position), None
    folder = survey.root if survey.root.is_dir() else survey.root.parent
    image = raw = None
    with suppress(SegwrightError):
        image = read_image(folder / look.image_file)
    with suppress(SegwrightError):
        raw = None if look.mask_file is None else read_raw_mask(folder / look.mask_file)
    return image, None, raw


def _visible(raw: np.ndarray) -> np.ndarray:
    """Stored values from black to white; colours as they are."""
    if raw.ndim == 3:
        return raw
    low, high = int(raw.min()), int(raw.max())
    return ((raw.astype(np.float32) - low) * (255 / max(high - low, 1))).round().astype(np.uint8)


def _scaled(picture: np.ndarray, how: int) -> np.ndarray:
    factor = min(1.0, LONGER_SIDE_PX / max(picture.shape[:2]))
    if factor == 1.0:
        return picture
    size = [max(1, round(side * factor)) for side in picture.shape[1::-1]]
    return np.asarray(cv2.resize(picture, size, interpolation=how))


def _write(path: Path, data: bytes) -> None:
    with atomic(path) as stream:
        stream.write(data)
