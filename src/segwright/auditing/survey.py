"""One pass over a source: every image and mask is decoded once, and a small record of each is kept.

    tones, prints, labels, turned    what is measured of one image or mask (below this file)
    survey                           the records of all; this file
    integrity, frequencies, outliers, duplicates, shift, alignment, label_noise
                                     the questions, answered from them (above it)

Nothing stops the pass: what cannot be read or does not fit becomes the fault of its look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from segwright.auditing.findings import KINDS, Finding
from segwright.auditing.labels import Labels, measure_labels
from segwright.auditing.prints import Prints, fingerprint
from segwright.auditing.tones import Tones, measure
from segwright.auditing.turned import TURNS, fits_unturned, orientation_of
from segwright.data.ahead import in_order
from segwright.data.packing import pixel_digest, storable
from segwright.data.sources import Loose, Source, open_loosely
from segwright.data.sources.classes import Color
from segwright.errors import DataError
from segwright.types import ClassSet, ImageArray, MaskArray, Sample, SplitName


@dataclass(frozen=True)
class Fault:
    """Why an image or its mask cannot be used as it is.

    Attributes:
        kind: a key of `KINDS`.
        text: what exactly was seen.
        values: stored values that are no class, where calling them void mends it.
    """

    kind: str
    text: str
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.kind in KINDS, f"no such kind: {self.kind}"


@dataclass(frozen=True)
class Look:
    """What one pass kept of one image and its mask.

    Attributes:
        id: as in the source.
        image_file: relative to the source's root; for arrays `file.npz[key][row]`.
        mask_file: the same; None where there is no mask.
        split: the side that the source puts it on.
        group: as the source says.
        fault: why it cannot be used as it is; None where it can.
        size_px: rows and columns of the image; None where it cannot be read.
        channels: of the image.
        depth: type of its values: uint8, uint16 or float32.
        image_digest: of the decoded pixels; '' where there are none.
        mask_digest: of the labels; '' where there are none.
        tones: light and texture of the image.
        prints: what copies and crops are found by.
        labels: pixels and objects of each class.
    """

    id: str
    image_file: str
    mask_file: str | None
    split: SplitName | None = None
    group: str | None = None
    fault: Fault | None = None
    size_px: tuple[int, int] | None = None
    channels: int | None = None
    depth: str | None = None
    image_digest: str = ""
    mask_digest: str = ""
    tones: Tones | None = None
    prints: Prints | None = None
    labels: Labels | None = None


@dataclass(frozen=True)
class Survey:
    """All looks at one source.

    Attributes:
        root: the folder or file that was surveyed.
        source: with the coding of most masks; images that cannot be read are among its samples.
        classes: names and colours, as far as known.
        looks: one an image, in the order of the source; images that could not be read too, and at the end those that
            are named and not there.
        problems: what was found while listing and concerns no image.
        reader: the same source, which reads values between those of the classes as the nearest class.
    """

    root: Path
    source: Source | None
    classes: ClassSet
    looks: tuple[Look, ...]
    problems: tuple[Finding, ...] = ()
    reader: Source | None = field(default=None, repr=False, compare=False)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(look.id for look in self.looks)

    @property
    def usable(self) -> tuple[int, ...]:
        """Positions of looks without a fault and with a mask."""
        return tuple(i for i, look in enumerate(self.looks) if look.fault is None and look.mask_file is not None)

    def subset(self, positions: Sequence[int]) -> Survey:
        """The same with these looks only."""
        return replace(self, looks=tuple(self.looks[i] for i in positions))

    def side(self, split: SplitName) -> Survey:
        """The looks of one side."""
        return self.subset([i for i, look in enumerate(self.looks) if look.split == split])

    @cached_property
    def _samples(self) -> dict[str, Sample]:
        return {} if self.reader is None else {sample.id: sample for sample in self.reader.samples}

    def read(self, position: int) -> tuple[ImageArray, MaskArray | None]:
        """Image (C, H, W) and mask (H, W) of a look, read again; soft masks by the nearest class.

        Raises:
            DataError: one of them cannot be read, or is not there.
            MaskError: the mask is of another size.
        """
        reader, sample = self._found(position)
        return reader.read(sample)

    def read_image(self, position: int) -> ImageArray:
        """Image (C, H, W) of a look, read again, whatever is wrong with its mask.

        Raises:
            DataError: it cannot be read, or is not there.
        """
        reader, sample = self._found(position)
        return reader.read_image(sample)

    def _found(self, position: int) -> tuple[Source, Sample]:
        look = self.looks[position]
        if self.reader is None or look.id not in self._samples:
            raise DataError(f"image '{look.id}' is not there", mend="see what the audit says of it", file=self.root)
        return self.reader, self._samples[look.id]


def take_survey(
    path: Path,
    *,
    format: Literal["auto", "folder", "arrays", "voc", "manifest"] = "auto",  # noqa: A002  # the word users know
    names: Sequence[str] = (),
    colors: Sequence[Color] = (),
    mask_values: Sequence[int | Sequence[int]] = (),
    void_values: Sequence[int] = (255,),
    progress: bool = True,
) -> Survey:
    """Look at every image and mask of a source once; faults are noted, not raised.

    Args:
        path: as for `segwright.data.sources.open_source`, also for the next five.
        format: the reader, where the guess would be wrong.
        names: class names in label order.
        colors: one a class.
        mask_values: the stored value of each class.
        void_values: stored values that are no class.
        progress: show a bar with the time left, on a terminal.

    Raises:
        DataError: nothing is there at all, or a card beside it is wrong.
        MaskError: the masks do not agree on what their values mean.
    """
    loose = open_loosely(
        path,
        format=format,
        names=names,
        colors=colors,
        mask_values=mask_values,
        void_values=void_values,
        progress=progress,
    )
    source = loose.source
    reader = replace(source, coding=replace(source.coding, nearest=True))
    work = partial(_look, reader, _faults(loose))
    looks = tuple(
        in_order(work, source.samples, text="looking at images", progress=progress, bytes_of=source.decoding_bytes)
    )
    known = {look.id for look in looks}
    absent = [stray for stray in loose.strays if stray.id not in known and not stray.harmless]
    nowhere = {stray.id: Look(stray.id, "", None, fault=Fault(stray.kind, stray.error.problem)) for stray in absent}
    return Survey(source.root, source, source.classes, (*looks, *nowhere.values()), _problems(loose), reader)


def _faults(loose: Loose) -> dict[str, Fault]:
    """What is known of images before they are read; what the listing says goes first."""
    faults = {name: Fault(odd.kind, odd.text, odd.values) for name, odd in loose.odd.items()}
    for stray in loose.strays:
        text = "no mask has its name" if stray.kind == "missing_mask" else stray.error.problem
        faults[stray.id] = Fault(stray.kind, text)
    return faults


def _problems(loose: Loose) -> tuple[Finding, ...]:
    lonely = tuple(stray.id for stray in loose.strays if stray.kind == "missing_image" and stray.harmless)
    if not lonely:
        return ()
    count = f"{len(lonely)} mask{'s have' if len(lonely) > 1 else ' has'}"
    return (Finding("missing_image", f"{count} no image.", ids=lonely),)


def _look(reader: Source, faults: dict[str, Fault], sample: Sample) -> Look:
    """Read one image and its mask and measure them."""
    look = Look(
        id=sample.id,
        image_file=_file(reader, sample.image, sample.row),
        mask_file=None if sample.mask is None else _file(reader, sample.mask, sample.row),
        split=sample.split,
        group=sample.group,
        fault=faults.get(sample.id),
    )
    try:
        image = reader.read_image(sample)
    except DataError as error:
        return replace(look, fault=Fault("broken_image", error.problem))
    look = replace(
        look,
        size_px=(image.shape[1], image.shape[2]),
        channels=image.shape[0],
        depth=image.dtype.name,
        image_digest=pixel_digest(storable(image)),
        tones=measure(image),
        prints=fingerprint(image),
    )
    return look if sample.mask is None else _with_mask(look, image, reader=reader, sample=sample)


def _with_mask(look: Look, image: ImageArray, *, reader: Source, sample: Sample) -> Look:
    try:
        mask = reader.read_mask(sample)
    except DataError as error:
        return look if look.fault else replace(look, fault=Fault("broken_mask", error.problem))
    misfit = _misfit(image, mask, path=None if sample.row is not None else reader.root / sample.image)
    if misfit is not None:
        return replace(look, fault=misfit)
    if look.fault is not None and look.fault.kind != "soft_mask":
        return look
    labels = measure_labels(mask, reader.classes.num_classes)
    return replace(look, mask_digest=pixel_digest(np.ascontiguousarray(mask)), labels=labels)


def _misfit(image: ImageArray, mask: UInt8[np.ndarray, "h w"], *, path: Path | None) -> Fault | None:
    """Another size, or drawn on the photo as it was before it was turned."""
    orientation = 1 if path is None else orientation_of(path)
    if orientation != 1 and fits_unturned(image, mask, orientation):
        return Fault("turned_photo", f"the photo has to be {TURNS[orientation]}; its mask fits it as it is stored")
    if mask.shape == image.shape[1:]:
        return None
    lying = ", as if one of them were turned" if mask.shape == image.shape[:0:-1] else ""
    sizes = f"mask {mask.shape[1]} x {mask.shape[0]} pixels, image {image.shape[2]} x {image.shape[1]}{lying}"
    return Fault("size_mismatch", sizes)


def _file(reader: Source, name: str, row: int | None) -> str:
    return name if row is None else f"{reader.root.name}[{name}][{row}]"
