"""A source: where images and masks are, what the stored values mean, and how one sample is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segwright.data.card import RULES
from segwright.data.sources.listing import ArrayTable, SourceFormat
from segwright.data.sources.masks import MaskCoding, read_mask_file
from segwright.errors import DataError, MaskError
from segwright.files import decoded_bytes, read_image
from segwright.types import ClassSet, ImageArray, MaskArray, Sample, SplitName


@dataclass(frozen=True)
class Source:
    """Where images and masks are, what their values mean, and how to read one.

    Attributes:
        root: the folder, or the file of arrays.
        format: folder, arrays, voc or manifest.
        samples: without those that the card dropped.
        classes: names and colours; rules (what to ignore) only where a card gives them.
        coding: from stored mask values to labels.
        notes: sentences for the user.
        dropped: id -> reason, for samples that the card leaves out.
        split_file: a JSON that the card names.
        groups: a regular expression or a file of groups that the card names.
        submission_values: what stands for each class in a submission file, where a card says it; may be empty.
        other_files: files besides images and masks that decide what is read.
        own_names: class names that the source itself brings (a class file or card); empty where it brings none.
        arrays: the pixels, where they are arrays.
    """

    root: Path
    format: SourceFormat
    samples: tuple[Sample, ...]
    classes: ClassSet
    coding: MaskCoding
    notes: tuple[str, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    split_file: Path | None = None
    groups: str | None = None
    submission_values: tuple[int, ...] = ()
    other_files: tuple[Path, ...] = ()
    own_names: tuple[str, ...] = ()
    arrays: ArrayTable = field(default_factory=ArrayTable, repr=False, compare=False)

    @property
    def labelled(self) -> bool:
        """Some sample has a mask."""
        return any(sample.mask is not None for sample in self.samples)

    @property
    def values_to_submit(self) -> tuple[int, ...] | None:
        """What stands for each class in a submission file; None where masks hold colours, and no card says it."""
        stored = None if self.coding.kind == "rgb" else self.coding.values
        return self.submission_values or stored

    def require_classes(self, names: tuple[str, ...]) -> None:
        """Make sure that the source's own class names, where it brings any, are these in this order.

        Raises:
            DataError: they differ, so that labels would be read as other classes.
        """
        if self.own_names and self.own_names != names and self.coding.kind != "rgb":
            raise DataError(
                f"its classes are {', '.join(self.own_names)}, the model's {', '.join(names)}",
                mend="bring its masks and its class file into the model's order",
                file=self.root,
            )

    def read_image(self, sample: Sample) -> ImageArray:
        """The image as (C, H, W) uint8, uint16 or float32.

        Raises:
            DataError: it cannot be read, or holds NaN or infinity.
        """
        if sample.row is not None:
            image: np.ndarray = np.asarray(self.arrays.images[sample.image][sample.row])
        else:
            image = read_image(self.root / sample.image)
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise DataError("image holds NaN or infinity", mend="fill the gaps with a number", file=self.place(sample))
        return image

    def read_mask(self, sample: Sample) -> MaskArray:
        """The mask as (H, W) uint8 labels, 255 where void.

        Raises:
            DataError: it cannot be read.
            MaskError: it holds a value that no class owns.
        """
        assert sample.mask is not None, "only labelled samples have a mask"
        if sample.row is not None:
            raw = np.asarray(self.arrays.masks[sample.mask][sample.row])
            return self.coding.decode(raw, file=f"{self.root}[{sample.mask}][{sample.row}]")
        path = self.root / sample.mask
        return self.coding.decode(read_mask_file(path, colored=self.coding.kind == "rgb"), file=path)

    def read(self, sample: Sample) -> tuple[ImageArray, MaskArray | None]:
        """Image and mask, of one height and width.

        Raises:
            DataError: as `read_image` and `read_mask`.
            MaskError: the mask is of another size.
        """
        image = self.read_image(sample)
        if sample.mask is None:
            return image, None
        mask = self.read_mask(sample)
        if mask.shape != image.shape[1:]:
            sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {image.shape[2]} x {image.shape[1]}"
            raise MaskError(f"mask has {sizes}", mend="export both at one size", file=self.root / sample.mask)
        return image, mask

    def decoding_bytes(self, sample: Sample) -> int:
        """About what a sample takes in memory while it is read; 0 for arrays, which are in memory already."""
        return 0 if sample.row is not None else decoded_bytes(self.root / sample.image)

    def place(self, sample: Sample) -> str:
        """Where a sample's image lies, for messages."""
        return str(self.root / sample.image) if sample.row is None else f"{self.root}[{sample.image}][{sample.row}]"

    def fingerprint_files(self) -> list[Path]:
        """Every file that decides what is read; while none of them changes, neither does the source."""
        files = set(self.other_files)
        for sample in self.samples:
            if sample.row is None:
                files |= {self.root / name for name in (sample.image, sample.mask) if name is not None}
        return sorted(files)

    def as_card(self) -> dict[str, Any]:
        """What `segwright.data.card.write_card` writes; its source is an absolute path."""
        sides: dict[SplitName, list[str]] = {}
        for sample in self.samples:
            if sample.split is not None:
                sides.setdefault(sample.split, []).append(sample.id)
        tree: dict[str, Any] = {
            "source": str((self.other_files[0] if self.format == "manifest" else self.root).resolve()),
            "format": self.format,
            "classes": list(self.classes.names),
            "colors": [list(color) for color in self.classes.colors],
            "mask_values": [] if self.coding.kind == "rgb" else list(self.coding.of_classes),
            "void_values": list(self.coding.void),
            "submission_values": list(self.submission_values),
            "nearest": self.coding.nearest,
            "split": str(self.split_file.resolve()) if self.split_file is not None else (sides or None),
            "groups": self.groups,
            "dropped": dict(self.dropped),
        }
        for rule in RULES:
            tree[rule] = [self.classes.names[label] for label in getattr(self.classes, rule)]
        return tree
