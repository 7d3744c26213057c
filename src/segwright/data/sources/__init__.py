"""Sources: images and masks as people have them, read in one way.

`open_source` finds out what a path holds (folder, arrays, VOC devkit, CSV manifest, or a card that names one of them)
and how its masks are coded. A `Source` knows every sample and reads it on demand; nothing is copied. What does not fit
is refused; `open_loosely` tells of it instead.

    folder, arrays, voc, manifest    path -> Listing: which samples there are
    classes                          names and colours
    detection, masks                 how masks are coded; stored values -> labels
    inspection, settling, majority   how most masks are coded, and which ones are not
    opening, source                  all of it together
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segwright.data.sources.classes import Color
from segwright.data.sources.detection import Tally, detect, glance, tally_arrays, tally_files
from segwright.data.sources.listing import Listing, require_whole, without_mask
from segwright.data.sources.loosely import Loose, open_loosely
from segwright.data.sources.opening import Asked, AskedFormat, begin, finish, known
from segwright.data.sources.source import Source
from segwright.types import Sample

__all__ = ["Loose", "Source", "open_loosely", "open_source"]

MASKS_LOOKED_AT = 200
"""So many masks tell the coding of all."""


def open_source(
    path: Path,
    *,
    format: AskedFormat = "auto",  # noqa: A002  # the word users know
    names: Sequence[str] = (),
    colors: Sequence[Color] = (),
    mask_values: Sequence[int | Sequence[int]] = (),
    void_values: Sequence[int] = (255,),
    nearest: bool = False,
    masks: bool = True,
) -> Source:
    """Find out what a path holds.

    Args:
        path: a folder, .npz, .npy, VOC devkit, .csv manifest, a picture, or a .yaml card.
        format: the reader, where the guess would be wrong.
        names: class names in label order; else taken from a class file, else `class 0`, `class 1`, ...
        colors: one a class; for colour-coded masks, the table.
        mask_values: the stored value of each class, where masks do not hold 0..K-1, or values that are one class.
        void_values: stored values that are no class.
        nearest: read a stored value that is none of these as the nearest one; needs mask_values or colors.
        masks: False where only the images are wanted; masks are then not looked at.

    Raises:
        DataError: nothing there can be read as a source.
        MaskError: masks hold values that fit no classes.
        RecipeError: names or colours that contradict one another.
    """
    beginning = begin(Path(path), Asked(names, colors, mask_values, void_values, nearest), format=format, masks=masks)
    listing, told = beginning.listing, known(beginning)
    require_whole((*listing.strays, *without_mask(listing.samples, root=beginning.path)))
    masked = [sample for sample in listing.samples if sample.mask is not None]
    if not masked:
        return finish(beginning, told, None)
    found = detect(
        _tallied(listing, masked),
        num_classes=told.num_classes,
        mask_values=told.mask_values,
        colors=told.colors,
        void_values=told.void_values,
        nearest=told.nearest,
    )
    return finish(beginning, told, found)


def _tallied(listing: Listing, masked: list[Sample]) -> Tally:
    """Look at all masks, or at 200 of them, spread over the source."""
    if listing.arrays.masks:
        return tally_arrays(
            (f"{listing.root}[{sample.mask}][{sample.row}]", listing.arrays.masks[sample.mask][sample.row])
            for sample in masked
            if sample.mask is not None and sample.row is not None
        )
    step = max(1, -(-len(masked) // MASKS_LOOKED_AT))
    files = [sample.mask for sample in masked[::step] if sample.mask is not None]
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        glances = list(pool.map(lambda name: glance(listing.root / name, file=str(listing.root / name)), files))
    return tally_files(glances, complete=step == 1)
