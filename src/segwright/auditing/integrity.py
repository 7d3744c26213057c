"""Is every image there, whole, with a mask that fits it and says what the others say?

Faults were met while looking (see `survey`); here they are put together, and what differs between images is counted:
masks without content, sizes, channels and bit depths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from segwright.auditing.findings import Answer, Finding
from segwright.auditing.survey import Look, Survey

MUCH_VOID = 0.5
"""An image is mostly void above this share."""

SIZES_APART = 1.5
"""Rows or columns of the largest picture over those of the smallest, from which sizes are called very different."""

MANY = 0.2
"""Where more masks than this share have soft edges, leaving them out is no cure."""

SIZES_LISTED = 20

_FAULTS: dict[str, tuple[str, str, str]] = {
    "broken_image": ("image", "cannot be read", "image "),
    "broken_mask": ("mask", "cannot be read", "mask "),
    "missing_mask": ("image", "without a mask", ""),
    "double_mask": ("image", "with two masks", ""),
    "double_name": ("picture", "with the name of another", ""),
    "broken_line": ("line", "that cannot be used", ""),
    "missing_image": ("listed image", "not found", ""),
    "size_mismatch": ("mask", "of another size than the image", ""),
    "turned_photo": ("photo", "marked as turned, with a mask drawn on the unturned picture", ""),
    "unknown_label": ("mask", "with a value that is no class", ""),
    "soft_mask": ("mask", "with in-between values along the edges", ""),
    "mixed_values": ("mask", "written in other numbers than most", ""),
    "color_confusion": ("mask", "coloured or numbered otherwise than most", ""),
    "speckled_mask": ("mask", "of mere speckle", "mask of mere speckle: "),
}
"""Fault -> what it is counted in, what is said of them, and how the reason for leaving one out begins."""


def examine(survey: Survey) -> Answer:
    """Put together what is broken, missing, odd or mixed.

    Returns:
        Facts: `images`, `masks`, `usable`, `faults` (kind -> count), `sizes`, `channels`, `depths`, `void_share`,
        `coding` (sentences on how masks were read), and what a repaired card must say: `nearest` (values in between are
        read as the nearest class) and `void_values` (stored values that are no class). The findings include what was
        found while listing.
    """
    faults = {kind: [look for look in survey.looks if _has(look, kind)] for kind in _FAULTS}
    usable = [survey.looks[i] for i in survey.usable]
    found = [_fault(survey, kind, looks) for kind, looks in faults.items() if looks]
    found += survey.problems
    found += [*_contents(survey, usable), *_mixtures(survey.looks)]
    return Answer(_facts(survey, faults, usable), tuple(found))


def _has(look: Look, kind: str) -> bool:
    return look.fault is not None and look.fault.kind == kind


def _fault(survey: Survey, kind: str, looks: list[Look]) -> Finding:
    noun, said, begin = _FAULTS[kind]
    notes = {look.id: look.fault.text for look in looks if look.fault is not None}
    kept = {look.id for look in looks if _mended_by_card(survey, look, count=len(looks))}
    return Finding(
        kind,
        f"{_count(len(looks), noun)} of {len(survey.looks):,} {said}.",
        ids=tuple(notes),
        notes=notes,
        drop={name: f"{begin}{text}" for name, text in notes.items() if name not in kept},
        numbers={"count": len(looks), "mended_by_card": len(kept)},
    )


def _mended_by_card(survey: Survey, look: Look, *, count: int) -> bool:
    """Whether a card can say how this mask is read, so that its image need not be left out."""
    assert look.fault is not None, "only faults are mended"
    if look.fault.kind == "unknown_label":
        return bool(look.fault.values)
    if look.fault.kind != "soft_mask":
        return False
    # Between three numbers and more, the edge of two classes runs through the value of another.
    plain = survey.classes.num_classes <= 2 or (survey.source is not None and survey.source.coding.kind == "rgb")
    return plain or count > MANY * len(survey.looks)


def _contents(survey: Survey, usable: list[Look]) -> list[Finding]:
    """Masks that hold nothing, one class only, or mostly void."""
    labelled = [(look, look.labels) for look in usable if look.labels is not None]
    names = survey.classes.names
    empty = [look.id for look, labels in labelled if not labels.present]
    alone = {look.id: names[labels.present[0]] for look, labels in labelled if len(labels.present) == 1}
    void = {look.id: labels.void_share for look, labels in labelled if labels.present and labels.void_share > MUCH_VOID}
    found = []
    if empty:
        found.append(
            Finding("empty_mask", f"{_count(len(empty), 'mask')} of {len(labelled):,} all void.", ids=tuple(empty))
        )
    if alone and len(names) > 1:
        tally = Counter(alone.values()).most_common()
        which = ", ".join(f"{count:,} of '{name}'" for name, count in tally)
        found.append(
            Finding(
                "constant_mask",
                f"{_count(len(alone), 'mask')} of {len(labelled):,} of one class only: {which}.",
                ids=tuple(sorted(alone, key=lambda name: -[one for one, _ in tally].index(alone[name]))),
                notes={name: f"nothing but '{label}'" for name, label in alone.items()},
                numbers=dict(tally),
            )
        )
    if void:
        order = sorted(void, key=lambda name: -void[name])
        found.append(
            Finding(
                "much_void",
                f"{_count(len(void), 'image')} of {len(labelled):,} more than half void.",
                ids=tuple(order),
                notes={name: f"{void[name]:.0%} void" for name in order},
            )
        )
    return found


def _mixtures(looks: tuple[Look, ...]) -> list[Finding]:
    """Pictures that differ in channels, bit depth or size."""
    seen = [look for look in looks if look.size_px is not None]
    found = [
        _mixture("mixed_channels", seen, lambda look: look.channels, _channels),
        _mixture("mixed_depths", seen, lambda look: look.depth, _depth),
    ]
    rows, columns = ([look.size_px[axis] for look in seen if look.size_px is not None] for axis in (0, 1))
    if seen and max(max(rows) / min(rows), max(columns) / min(columns)) >= SIZES_APART:
        found.append(_mixture("mixed_sizes", seen, lambda look: look.size_px, _size))
    return [finding for finding in found if finding is not None]


def _mixture(
    kind: str, looks: list[Look], part: Callable[[Look], Hashable], said: Callable[[Any], str]
) -> Finding | None:
    """One finding where images differ in something; those that are unlike most come first, the rarest sort first."""
    groups: dict[Any, list[str]] = {}
    for look in looks:
        groups.setdefault(part(look), []).append(look.id)
    if len(groups) < 2:
        return None
    common, *rest = sorted(groups, key=lambda one: -len(groups[one]))
    shown = ", ".join(f"{len(groups[one]):,} {said(one)}" for one in (common, *rest)[:4])
    more = f" and {len(rest) - 3} more kinds" if len(rest) > 3 else ""
    return Finding(
        kind,
        f"{len(groups)} kinds among {len(looks):,} images: {shown}{more}.",
        ids=tuple(name for one in reversed(rest) for name in groups[one]),
        notes={name: said(one) for one in rest for name in groups[one]},
        groups=tuple(tuple(groups[one]) for one in (common, *rest)),
        numbers={said(one): len(groups[one]) for one in (common, *rest)},
    )


def _channels(count: int) -> str:
    return {1: "gray", 3: "colour", 4: "colour with transparency"}.get(count, f"with {count} channels")


def _depth(name: str) -> str:
    return {"uint8": "with 8 bits", "uint16": "with 16 bits", "float32": "with fractions"}.get(name, name)


def _size(size_px: tuple[int, int]) -> str:
    return f"of {size_px[1]} x {size_px[0]} pixels"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _facts(survey: Survey, faults: Mapping[str, list[Look]], usable: list[Look]) -> dict[str, Any]:
    sizes = Counter(look.size_px for look in survey.looks if look.size_px is not None)
    labels = [look.labels for look in usable if look.labels is not None]
    pixels = sum(int(one.pixels.sum()) + one.void_px for one in labels)
    soft = faults["soft_mask"]
    stray = {value for look in faults["unknown_label"] if look.fault is not None for value in look.fault.values}
    return {
        "images": len(survey.looks),
        "masks": sum(look.mask_file is not None for look in survey.looks),
        "usable": len(usable),
        "faults": {kind: len(looks) for kind, looks in faults.items() if looks},
        "sizes": [
            {"rows": rows, "columns": columns, "images": count}
            for (rows, columns), count in sizes.most_common(SIZES_LISTED)
        ],
        "channels": {
            str(one): count for one, count in Counter(look.channels for look in survey.looks if look.channels).items()
        },
        "depths": dict(Counter(look.depth for look in survey.looks if look.depth)),
        "void_share": sum(one.void_px for one in labels) / max(pixels, 1),
        "coding": list(survey.source.notes) if survey.source is not None else [],
        "nearest": any(_mended_by_card(survey, look, count=len(soft)) for look in soft),
        "void_values": sorted(stray),
    }
