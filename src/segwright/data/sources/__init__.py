"""Sources: images and masks as people have them, read in one way.

`open_source` finds out what a path holds (folder, arrays, VOC devkit, CSV manifest, or a card that names one of them)
and how its masks are coded. A `Source` knows every sample and reads it on demand; nothing is copied.

    folder, arrays, voc, manifest    path -> Listing: which samples there are
    classes                          names and colours
    detection, masks                 how masks are coded; stored values -> labels
    source                           all of it together
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

from segwright.data.card import CARD_SUFFIXES, GROUP_SUFFIXES, RULES, Card, read_card
from segwright.data.sources.arrays import list_arrays
from segwright.data.sources.classes import Color, default_colors
from segwright.data.sources.detection import Found, Survey, detect, glance, survey_arrays, survey_files
from segwright.data.sources.folder import list_folder
from segwright.data.sources.listing import Listing, SourceFormat, require_masks, some
from segwright.data.sources.manifest import list_manifest
from segwright.data.sources.masks import MaskCoding
from segwright.data.sources.source import Source
from segwright.data.sources.voc import find_voc, list_voc
from segwright.errors import DataError, nearest
from segwright.files import IMAGE_SUFFIXES, read_yaml
from segwright.types import ClassSet, Sample, SplitName

__all__ = ["Source", "open_source"]

MASKS_LOOKED_AT = 200
"""So many masks tell the coding of all."""

_READERS = {"folder": list_folder, "arrays": list_arrays, "voc": list_voc, "manifest": list_manifest}
_ARRAY_SUFFIXES = (".npz", ".npy")
_TABLE_SUFFIXES = (".csv", ".tsv")


def open_source(
    path: Path,
    *,
    format: Literal["auto", "folder", "arrays", "voc", "manifest"] = "auto",  # noqa: A002  # the word users know
    names: Sequence[str] = (),
    colors: Sequence[Color] = (),
    mask_values: Sequence[int] = (),
    void_values: Sequence[int] = (255,),
    masks: bool = True,
) -> Source:
    """Find out what a path holds.

    Args:
        path: a folder, .npz, .npy, VOC devkit, .csv manifest, a picture, or a .yaml card.
        format: the reader, where the guess would be wrong.
        names: class names in label order; else taken from a class file, else `class 0`, `class 1`, ...
        colors: one a class; for colour-coded masks, the table.
        mask_values: the stored value of each class, where masks do not hold 0..K-1.
        void_values: stored values that are no class.
        masks: False where only the images are wanted; masks are then not looked at.

    Raises:
        DataError: nothing there can be read as a source.
        MaskError: masks hold values that fit no classes.
        RecipeError: names or colours that contradict one another.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("does not exist", mend="check the path", file=path)
    card_path = _card_of(path)
    if card_path is None:
        listing = _list(path, format, masks=masks)
        require_masks(listing.samples, root=path)
        return _open(
            listing,
            names=names,
            colors=colors,
            mask_values=mask_values,
            void_values=void_values,
        )
    card = read_card(card_path)
    wanted = card.format if format == "auto" else format
    target = _named_by(card_path, card.source)
    listing = _list(target, wanted, masks=masks)
    listing = replace(listing, files=(*listing.files, card_path))
    listing, dropped = _without(listing, card.dropped, card_path)
    require_masks(listing.samples, root=target)
    usual = tuple(void_values) == (255,)
    source = _open(
        listing,
        names=names or card.classes,
        colors=colors or card.colors,
        mask_values=mask_values or card.mask_values,
        void_values=card.void_values if usual else void_values,
    )
    if not masks and not source.own_names and not (names or card.classes):
        card = card.model_copy(update=dict.fromkeys(RULES, ()))  # the names that the rules name were not read
    return _with_card(source, card, card_path=card_path, dropped=dropped)


def _card_of(path: Path) -> Path | None:
    """The card that a path is, or that lies in it as data.yaml (and names a source: other tools use that name too)."""
    if path.suffix.lower() in CARD_SUFFIXES and path.is_file():
        return path
    inside = path / "data.yaml"
    if path.is_dir() and inside.is_file():
        tree = read_yaml(inside)
        return inside if isinstance(tree, dict) and "source" in tree else None
    return None


def _named_by(card_path: Path, name: str) -> Path:
    target = card_path.parent / name
    if not target.exists():
        raise DataError(f"names '{name}', which does not exist", mend="paths are relative to the card", file=card_path)
    return target


def _list(path: Path, wanted: str, *, masks: bool) -> Listing:
    reader = _guess(path) if wanted == "auto" else wanted
    if reader not in _READERS:
        raise DataError(f"unknown format '{reader}'", mend=nearest(reader, _READERS))
    if path.is_dir() and reader == "arrays" and not any(path.glob("*.npy")):
        path = next(iter(sorted(path.glob("*.npz"))), path)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and reader == "folder":
        return Listing(root=path.parent, format="folder", samples=(Sample(id=path.stem, image=path.name, mask=None),))
    listing = _READERS[reader](path)
    if not masks:
        return replace(listing, samples=tuple(replace(sample, mask=None) for sample in listing.samples), hint=None)
    return listing


def _guess(path: Path) -> SourceFormat:
    suffix = path.suffix.lower()
    if path.is_file():
        if suffix in _ARRAY_SUFFIXES:
            return "arrays"
        if suffix in _TABLE_SUFFIXES:
            return "manifest"
        if suffix in IMAGE_SUFFIXES:
            return "folder"
        raise DataError(
            f"is no source ('{suffix or path.name}')",
            mend="give a folder, .npz, .npy, .csv, a picture or a .yaml card",
            file=path,
        )
    if find_voc(path) is not None:
        return "voc"
    names = {child.stem for child in path.glob("*.npy")}
    # Beside folders of pictures an array is something else, such as groups.
    if not any(child.is_dir() for child in path.iterdir()) and (names or len(list(path.glob("*.npz"))) == 1):
        return "arrays"
    return "folder"


def _open(
    listing: Listing,
    *,
    names: Sequence[str],
    colors: Sequence[Color],
    mask_values: Sequence[int],
    void_values: Sequence[int],
) -> Source:
    """Join a listing with what its masks and its user say about the classes."""
    hint = listing.hint
    # What the user names goes before a file beside the images, as a whole: half of each would be a third thing.
    table = tuple(colors) or (hint.colors if hint is not None and not names else ())
    known = tuple(names) or (hint.names if hint is not None else ())
    stored = tuple(mask_values) or (hint.values if hint is not None and not names else ())
    num_classes = len(known) or len(stored) or len(colors) or None
    masked = [sample for sample in listing.samples if sample.mask is not None]
    if masked:
        found = detect(
            _survey(listing, masked), num_classes=num_classes, mask_values=stored, colors=table, void_values=void_values
        )
    else:
        found = Found(MaskCoding("index", tuple(range(num_classes or 1)), tuple(void_values)))
    count = len(found.coding.values)
    if known and len(known) != count:
        raise DataError(
            f"{len(known)} class names for {count} mask values or colours",
            mend="give one name a class",
            file=listing.root,
        )
    classes = ClassSet(
        names=known or tuple(f"class {label}" for label in range(count)),
        colors=table or found.colors or default_colors(count),
    )
    return Source(
        root=listing.root,
        format=listing.format,
        samples=listing.samples,
        classes=classes,
        coding=found.coding,
        notes=(*listing.notes, *found.notes),
        other_files=listing.files,
        own_names=hint.names if hint is not None else (),
        arrays=listing.arrays,
    )


def _survey(listing: Listing, masked: list[Sample]) -> Survey:
    """Look at all masks, or at 200 of them, spread over the source."""
    if listing.arrays.masks:
        return survey_arrays(
            (f"{listing.root}[{sample.mask}][{sample.row}]", listing.arrays.masks[sample.mask][sample.row])
            for sample in masked
            if sample.mask is not None and sample.row is not None
        )
    step = max(1, -(-len(masked) // MASKS_LOOKED_AT))
    files = [sample.mask for sample in masked[::step] if sample.mask is not None]
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        glances = list(pool.map(lambda name: glance(listing.root / name, file=str(listing.root / name)), files))
    return survey_files(glances, complete=step == 1)


def _without(listing: Listing, dropped: dict[str, str], card_path: Path) -> tuple[Listing, dict[str, str]]:
    """Leave out what the card drops, before any of it is looked at."""
    ids = {sample.id for sample in listing.samples}
    unknown = [one for one in dropped if one not in ids]
    if unknown:
        raise DataError(
            f"drops unknown ids: {some(unknown)}", mend=nearest(unknown[0], sorted(ids)[:20]), file=card_path
        )
    return replace(listing, samples=tuple(sample for sample in listing.samples if sample.id not in dropped)), dict(
        dropped
    )


def _with_card(source: Source, card: Card, *, card_path: Path, dropped: dict[str, str]) -> Source:
    """Add what a card says beyond the pixels: rules, sides, groups."""

    def labels(names: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(source.classes.index(name) for name in names)

    classes = replace(
        source.classes,
        ignore_in_loss=labels(card.ignore_in_loss),
        ignore_in_score=labels(card.ignore_in_score),
        leave_out_of_mean=labels(card.leave_out_of_mean),
        never_predict=labels(card.never_predict),
    )
    split_file, groups, samples = None, card.groups, source.samples
    if isinstance(card.split, str):
        split_file = _named_by(card_path, card.split)
    elif card.split is not None:
        samples = _divided(source.samples, card.split, card_path)
    if groups is not None and Path(groups).suffix.lower() in GROUP_SUFFIXES:
        groups = str(_named_by(card_path, groups).resolve())
    return replace(
        source,
        classes=classes,
        samples=samples,
        dropped=dropped,
        split_file=split_file,
        groups=groups,
        own_names=card.classes or source.own_names,
    )


def _divided(
    samples: tuple[Sample, ...], sides: dict[SplitName, tuple[str | int, ...]], card_path: Path
) -> tuple[Sample, ...]:
    """Put samples on the sides that the card lists; those it does not list are on none."""
    by_id = {sample.id: sample for sample in samples}
    side_of: dict[str, SplitName] = {}
    for side, members in sides.items():
        for member in members:
            one = f"{member:05d}" if isinstance(member, int) else member
            if one not in by_id:
                raise DataError(
                    f"puts unknown id '{one}' into {side}", mend=nearest(one, sorted(by_id)[:20]), file=card_path
                )
            if side_of.setdefault(one, side) != side:
                raise DataError(
                    f"puts '{one}' into {side_of[one]} and {side}", mend="keep it on one side", file=card_path
                )
    return tuple(replace(sample, split=side_of.get(sample.id)) for sample in samples)
