"""Open a source as far as it can be read: what does not fit is told instead of raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segwright.data.ahead import in_order
from segwright.data.sources.classes import Color
from segwright.data.sources.inspection import Inspection, inspect_file, inspect_values
from segwright.data.sources.listing import Listing, Stray, without_mask
from segwright.data.sources.majority import Odd, agree
from segwright.data.sources.opening import Asked, AskedFormat, begin, finish, known
from segwright.data.sources.source import Source
from segwright.files import decoded_bytes
from segwright.types import Sample


@dataclass(frozen=True)
class Loose:
    """A source as far as it can be read.

    Attributes:
        source: samples that cannot be read among the others; masks as most of them are coded.
        strays: what fits nowhere; an id may be that of a sample.
        odd: id -> what is odd about its mask.
    """

    source: Source
    strays: tuple[Stray, ...]
    odd: dict[str, Odd]


def open_loosely(
    path: Path,
    *,
    format: AskedFormat = "auto",  # noqa: A002  # the word users know
    names: Sequence[str] = (),
    colors: Sequence[Color] = (),
    mask_values: Sequence[int | Sequence[int]] = (),
    void_values: Sequence[int] = (255,),
    progress: bool = True,
) -> Loose:
    """As `segwright.data.sources.open_source`, but every mask is looked at, and what does not fit is told.

    Args:
        path: as there, also the next five.
        format: the reader.
        names: of the classes.
        colors: of the classes.
        mask_values: of the classes.
        void_values: stored values that are no class.
        progress: show a bar while masks are looked at.

    Raises:
        DataError: nothing there can be read as a source.
        MaskError: masks do not agree on what their values mean, or what is asked for fits none of them.
        RecipeError: names or colours that contradict one another.
    """
    beginning = begin(Path(path), Asked(names, colors, mask_values, void_values), format=format, masks=True)
    listing, told = beginning.listing, known(beginning)
    strays = (*listing.strays, *without_mask(listing.samples, root=beginning.path))
    masked = [sample for sample in listing.samples if sample.mask is not None]
    if not masked:
        return Loose(finish(beginning, told, None), strays, {})
    look, size = partial(_inspected, listing), partial(_decoding_bytes, listing)
    agreement = agree(
        list(in_order(look, masked, text="looking at masks", progress=progress, bytes_of=size)),
        num_classes=told.num_classes,
        mask_values=told.mask_values,
        colors=told.colors,
        void_values=told.void_values,
        nearest=told.nearest,
    )
    return Loose(finish(beginning, told, agreement.found), strays, agreement.odd)


def _decoding_bytes(listing: Listing, sample: Sample) -> int:
    return 0 if sample.row is not None or sample.mask is None else decoded_bytes(listing.root / sample.mask)


def _inspected(listing: Listing, sample: Sample) -> Inspection:
    assert sample.mask is not None, "only labelled samples have a mask"
    if sample.row is not None:
        return inspect_values(listing.arrays.masks[sample.mask][sample.row], file=sample.id)
    return inspect_file(listing.root / sample.mask, file=sample.id)
