"""The way from a path to a source: card, listing, classes; in between somebody finds out how the masks are coded.

begin     the card and what lies where it points, without what the card drops
known     what is known of the classes before a mask is looked at
finish    the source, once the coding of its masks is found
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from segwright.data.card import CARD_SUFFIXES, GROUP_SUFFIXES, RULES, Card, read_card
from segwright.data.sources.arrays import list_arrays, names_images
from segwright.data.sources.classes import Color, default_colors
from segwright.data.sources.detection import Found
from segwright.data.sources.folder import list_folder
from segwright.data.sources.listing import Listing, SourceFormat, pictures_below, some, subfolders
from segwright.data.sources.manifest import list_manifest
from segwright.data.sources.masks import MaskCoding, shown
from segwright.data.sources.source import Source
from segwright.data.sources.voc import find_voc, list_voc
from segwright.errors import DataError, nearest
from segwright.files import IMAGE_SUFFIXES, read_yaml
from segwright.types import ClassSet, Sample, SplitName

AskedFormat = Literal["auto", "folder", "arrays", "voc", "manifest"]

_READERS = {"folder": list_folder, "arrays": list_arrays, "voc": list_voc, "manifest": list_manifest}
_ARRAY_SUFFIXES = (".npz", ".npy")
_TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class Asked:
    """What the user says of the classes; see `segwright.data.sources.open_source`."""

    names: Sequence[str] = ()
    colors: Sequence[Color] = ()
    mask_values: Sequence[int | Sequence[int]] = ()
    void_values: Sequence[int] = (255,)
    nearest: bool = False


@dataclass(frozen=True)
class Beginning:
    """A listing and what the user and the card say.

    Attributes:
        path: what was listed, for messages.
        listing: without the samples that the card drops.
        asked: by the user, else by the card.
        masks: masks are to be read.
        card: None where there is none, also the next.
        card_path: where it lies.
        dropped: id -> reason, by the card.
    """

    path: Path
    listing: Listing
    asked: Asked
    masks: bool
    card: Card | None = None
    card_path: Path | None = None
    dropped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """What is known of the classes before the masks are looked at.

    Attributes:
        names: from the user, the card or a class file; may be empty, as may the next two.
        colors: one a class.
        mask_values: the stored value of each class, then those of `merged`.
        num_classes: None where nothing tells it.
        void_values: stored values that are no class.
        nearest: values in between are read as the nearest class.
        merged: further stored values, each with the label that it is taken for.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    mask_values: tuple[int, ...]
    num_classes: int | None
    void_values: tuple[int, ...]
    nearest: bool
    merged: tuple[tuple[int, int], ...] = ()


def begin(path: Path, asked: Asked, *, format: AskedFormat, masks: bool) -> Beginning:  # noqa: A002  # the word users know
    """Read the card, if there is one, and list what is there.

    Raises:
        DataError: nothing there can be read as a source; the card is wrong.
    """
    if not path.exists():
        raise DataError("does not exist", mend="check the path", file=path)
    if not path.is_file() and not path.is_dir():
        raise DataError("is neither a file nor a folder", mend="give a file or a folder of images", file=path)
    if path.is_dir():
        subfolders(path)  # whether it may be read at all
    card_path = _card_of(path)
    if card_path is None:
        return Beginning(path, _list(path, format, masks=masks), asked, masks)
    card = read_card(card_path)
    target = _named_by(card_path, card.source)
    listing = _list(target, card.format if format == "auto" else format, masks=masks)
    listing = replace(listing, files=(*listing.files, card_path))
    listing, dropped = _without(listing, card.dropped, card_path)
    usual = tuple(asked.void_values) == (255,)
    both = Asked(
        names=asked.names or card.classes,
        colors=asked.colors or card.colors,
        mask_values=asked.mask_values or card.mask_values,
        void_values=card.void_values if usual else asked.void_values,
        nearest=asked.nearest or card.nearest,
    )
    return Beginning(target, listing, both, masks, card, card_path, dropped)


def known(beginning: Beginning) -> Known:
    """Join what the user says of the classes with the class file beside the images.

    What the user names goes before the file, as a whole: half of each would be a third thing.
    """
    asked, hint = beginning.asked, beginning.listing.hint
    colors = tuple(asked.colors) or (hint.colors if hint is not None and not asked.names else ())
    names = tuple(asked.names) or (hint.names if hint is not None else ())
    given = [(one,) if isinstance(one, int) else tuple(one) for one in asked.mask_values]
    stored = tuple(first for first, *_ in given) or (hint.values if hint is not None and not asked.names else ())
    merged = tuple((value, label) for label, (_, *more) in enumerate(given) for value in more)
    num_classes = len(names) or len(stored) or len(asked.colors) or None
    stored += tuple(value for value, _ in merged)
    return Known(names, colors, stored, num_classes, tuple(asked.void_values), asked.nearest, merged)


def finish(beginning: Beginning, told: Known, found: Found | None) -> Source:
    """The source.

    Args:
        beginning: the listing and what was asked for.
        told: what was known before.
        found: how its masks are coded; None where there are no masks.

    Raises:
        DataError: names and coding differ in number; the card contradicts what is there.
    """
    if found is None:
        found = Found(MaskCoding("index", tuple(range(told.num_classes or 1)), told.void_values))
    listing, values = beginning.listing, found.coding.values
    # Where colours tell the classes, values do not.
    merged = told.merged if values == told.mask_values else ()
    count = len(values) - len(merged)
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        what = shown(twice, colored=found.coding.kind == "rgb")
        where = beginning.card_path or listing.root
        raise DataError(f"{what} stands for two classes", mend="give every class its own", file=where)
    if told.names and len(told.names) != count:
        raise DataError(
            f"{len(told.names)} class names for {count} mask values or colours",
            mend="give one name a class",
            file=listing.root,
        )
    classes = ClassSet(
        names=told.names or tuple(f"class {label}" for label in range(count)),
        colors=told.colors or found.colors[:count] or default_colors(count),
    )
    source = Source(
        root=listing.root,
        format=listing.format,
        samples=listing.samples,
        classes=classes,
        coding=replace(found.coding, values=values[:count], merged=merged),
        notes=(*listing.notes, *found.notes),
        other_files=listing.files,
        own_names=listing.hint.names if listing.hint is not None else (),
        arrays=listing.arrays,
    )
    card, card_path = beginning.card, beginning.card_path
    if card is None or card_path is None:
        return source
    if not (beginning.masks or source.own_names or told.names):
        card = card.model_copy(update=dict.fromkeys(RULES, ()))  # the names that the rules name were not read
    if source.labelled:
        values = _submission_values(source, card, card_path=card_path, asked=beginning.asked)
        source = replace(source, submission_values=values)
    return _with_card(source, card, card_path=card_path, dropped=beginning.dropped)


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
    if subfolders(path):
        return "folder"  # beside folders of pictures an array is something else, such as groups
    names = [child.stem for child in path.glob("*.npy")]
    if pictures_below(path, recursive=False):
        return "arrays" if any(map(names_images, names)) else "folder"
    return "arrays" if names or len(list(path.glob("*.npz"))) == 1 else "folder"


def _without(listing: Listing, dropped: dict[str, str], card_path: Path) -> tuple[Listing, dict[str, str]]:
    """Leave out what the card drops, before any of it is looked at."""
    ids = {sample.id for sample in listing.samples} | {stray.id for stray in listing.strays}
    unknown = [one for one in dropped if one not in ids]
    if unknown:
        raise DataError(
            f"drops unknown ids: {some(unknown)}", mend=nearest(unknown[0], sorted(ids)[:20]), file=card_path
        )
    samples = tuple(sample for sample in listing.samples if sample.id not in dropped)
    strays = tuple(stray for stray in listing.strays if stray.id not in dropped)
    return replace(listing, samples=samples, strays=strays), dict(dropped)


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
        samples = _divided(source.samples, card.split, card_path, dropped=dropped)
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


def _submission_values(source: Source, card: Card, *, card_path: Path, asked: Asked) -> tuple[int, ...]:
    """What a submission file holds for each class, as far as the card says it.

    Where the user takes other stored values for the classes than the card, each class keeps what the card says of its
    first one.

    Raises:
        DataError: the card gives another number of values than there are classes.
    """
    told, stored = card.submission_values, card.mask_values
    if told and stored and tuple(asked.mask_values) != stored and source.coding.kind != "rgb":
        of: dict[int, int] = {}
        for values, value in zip(stored, told, strict=True):
            of |= dict.fromkeys((values,) if isinstance(values, int) else values, value)
        found = tuple(of[value] for value in source.coding.values if value in of)
        return found if len({*found}) == source.classes.num_classes else ()
    if told and len(told) != source.classes.num_classes:
        problem = f"gives {len(told)} submission_values for {source.classes.num_classes} classes"
        raise DataError(problem, mend="give one a class", file=card_path)
    return told


def _divided(
    samples: tuple[Sample, ...],
    sides: dict[SplitName, tuple[str | int, ...]],
    card_path: Path,
    *,
    dropped: Mapping[str, str],
) -> tuple[Sample, ...]:
    """Put samples on the sides that the card lists, which may list what it drops; those not listed are on none."""
    by_id = {sample.id: sample for sample in samples}
    side_of: dict[str, SplitName] = {}
    for side, members in sides.items():
        for member in members:
            one = f"{member:05d}" if isinstance(member, int) else member
            if one in dropped:
                continue
            if one not in by_id:
                raise DataError(
                    f"puts unknown id '{one}' into {side}", mend=nearest(one, sorted(by_id)[:20]), file=card_path
                )
            if side_of.setdefault(one, side) != side:
                raise DataError(
                    f"puts '{one}' into {side_of[one]} and {side}", mend="keep it on one side", file=card_path
                )
    return tuple(replace(sample, split=side_of.get(sample.id)) for sample in samples)
