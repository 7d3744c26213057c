"""The Pascal VOC layout: JPEGImages/, SegmentationClass/ and lists of ids in ImageSets/Segmentation/.

Everingham et al., The Pascal Visual Object Classes Challenge, http://host.robots.ox.ac.uk/pascal/VOC/. The 21 classes
and the palette are those of VOC 2012; label 255 is the border between objects and counts nowhere. Exports of CVAT
bring their classes in `labelmap.txt`, which goes first.
"""

from __future__ import annotations

from pathlib import Path

from segwright.data.sources.classes import ClassHint, Color, find_classes
from segwright.data.sources.listing import Listing, Stray, pictures_below, without_ending
from segwright.errors import DataError
from segwright.files import read_text
from segwright.types import SPLIT_NAMES, Sample, SplitName

VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def voc_color(label: int) -> Color:
    """The colour that the VOC development kit gives a label: its bits, dealt to red, green and blue in turn."""
    red = green = blue = 0
    for bit in range(8):
        red |= (label & 1) << (7 - bit)
        green |= (label >> 1 & 1) << (7 - bit)
        blue |= (label >> 2 & 1) << (7 - bit)
        label >>= 3
    return red, green, blue


def find_voc(path: Path) -> Path | None:
    """The folder that holds JPEGImages and SegmentationClass: this one, or VOC20xx below it; None where there is none.

    Raises:
        DataError: there are several.
    """
    places = [path, *sorted(path.glob("VOC20??")), *sorted(path.glob("VOCdevkit/VOC20??"))]
    found = [place for place in places if (place / "JPEGImages").is_dir() and (place / "SegmentationClass").is_dir()]
    if len(found) > 1:
        years = ", ".join(place.name for place in found)
        raise DataError(f"holds several VOC sets: {years}", mend=f"name one of them, such as {found[-1]}", file=path)
    return found[0] if found else None


def list_voc(path: Path) -> Listing:
    """Find the samples of a VOC devkit; what names an image that is not there is a stray.

    Raises:
        DataError: the folders are missing, or an image stands on two sides.
    """
    root = find_voc(path)
    if root is None:
        raise DataError(
            "holds no JPEGImages/ and SegmentationClass/", mend="name the folder VOC20xx or the VOCdevkit", file=path
        )
    strays: list[Stray] = []
    images = _by_id(root / "JPEGImages", strays)
    masks = _by_id(root / "SegmentationClass", strays)
    sides, files = _read_sides(root)
    ids = sides or dict.fromkeys(sorted(masks))
    for one in ids:
        if one not in images:
            problem, mend = f"has no image '{one}'", "delete its line or its mask, or copy the image"
            strays.append(Stray("missing_image", one, DataError(problem, mend=mend, file=root / "JPEGImages")))
    samples = tuple(
        Sample(
            id=one,
            image=images[one].relative_to(root).as_posix(),
            mask=masks[one].relative_to(root).as_posix() if one in masks else None,
            split=side,
        )
        for one, side in ids.items()
        if one in images
    )
    if not samples and not strays:
        raise DataError("holds no masks", mend="check SegmentationClass/ and ImageSets/Segmentation/", file=root)
    hint = find_classes(root) or ClassHint(VOC_NAMES, colors=tuple(voc_color(label) for label in range(21)))
    files += () if hint.file is None else (hint.file,)
    return Listing(root=root, format="voc", samples=samples, files=files, hint=hint, strays=tuple(strays))


def _by_id(folder: Path, strays: list[Stray]) -> dict[str, Path]:
    """Pictures by their id; a second one of the same id is a stray."""
    found: dict[str, Path] = {}
    for path in pictures_below(folder):
        first = found.setdefault(without_ending(path, below=folder), path)
        if first is not path:
            problem = f"'{first.name}' and '{path.name}' share a name"
            error = DataError(problem, mend="keep one of them", file=folder)
            strays.append(Stray("double_name", path.relative_to(folder).as_posix(), error))
    return found


def _read_sides(root: Path) -> tuple[dict[str, SplitName | None], tuple[Path, ...]]:
    """Id -> side by the lists train.txt, val.txt and test.txt; trainval.txt only where they are missing."""
    folder = root / "ImageSets" / "Segmentation"
    sides: dict[str, SplitName | None] = {}
    files = []
    for side in SPLIT_NAMES:
        path = folder / f"{side}.txt"
        if not path.is_file():
            continue
        files.append(path)
        for one in _ids(path):
            if sides.get(one, side) != side:
                raise DataError(
                    f"names '{one}', which is in {sides[one]}.txt too", mend="keep it on one side", file=path
                )
            sides[one] = side
    both = folder / "trainval.txt"
    if not sides and both.is_file():
        return dict.fromkeys(_ids(both)), (both,)
    return sides, tuple(files)


def _ids(path: Path) -> list[str]:
    """One id a line; it may hold blanks."""
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]
