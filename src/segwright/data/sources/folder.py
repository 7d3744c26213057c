"""Folders of pictures, in the layouts that people have.

    images/ masks/                     one folder each, with any folders below; names of images match those of masks
    train/ val/ test/                  each with images/ and masks/ inside (test may hold images alone)
    images/train masks/train ...       the same the other way round
    train/ trainannot/ val/ valannot/  as in SegNet's CamVid
    train_images/ train_masks/ ...     a folder for each side of each kind
    a.jpg a_mask.png b.jpg b_mask.png  pairs side by side
    a.jpg b.jpg                        no masks: images to predict

A mask belongs to an image when their names are equal, once endings such as `_mask`, `_gt` or `_L`, or beginnings such
as `label_`, are taken off.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from segwright.data.sources.classes import find_classes
from segwright.data.sources.listing import (
    SPLIT_WORDS,
    Listing,
    Stray,
    pictures_below,
    some,
    subfolders,
    told_apart,
    without_ending,
)
from segwright.errors import DataError
from segwright.types import Sample, SplitName

_IMAGE_FOLDERS = [
    "images",
    "image",
    "imgs",
    "img",
    "photos",
    "pictures",
    "rgb",
    "input",
    "inputs",
    "frames",
    "leftimg8bit",
    "original_images",
    "x",
]
_MASK_FOLDERS = [
    "masks",
    "mask",
    "labels",
    "label",
    "label_images",
    "label_images_semantic",
    "images_semantic",
    "annotations",
    "annotation",
    "annot",
    "gt",
    "groundtruth",
    "ground_truth",
    "gtfine",
    "segmentation",
    "segmentations",
    "targets",
    "target",
    "y",
]
_MASK_ENDING = re.compile(
    r"[_\-. ](gtfine_label(train)?ids|labelids|masks?|gt|labels?|lab|l|seg|segmentation|annotation|groundtruth)$",
    re.IGNORECASE,
)
_MASK_START = re.compile(
    r"(^|/)(masks?|gt|labels?|lab|seg|segmentation|annotation|groundtruth)[_\-. ](?=[^/]+$)", re.IGNORECASE
)
_IMAGE_ENDING = re.compile(r"[_\-. ](image|img|rgb|leftimg8bit)$", re.IGNORECASE)
_IMAGE_START = re.compile(r"(^|/)(image|img|photo|picture|rgb)[_\-. ](?=[^/]+$)", re.IGNORECASE)
_OF_A_SIDE = re.compile(r"[_\- ]?(images?|imgs?|photos|pictures|frames)$", re.IGNORECASE)
_BESIDE = re.compile(r"[_\- ]?(annot|annotations?|masks?|labels?|gt)$", re.IGNORECASE)


@dataclass(frozen=True)
class Margin:
    """What is noticed on the way; strays carry the file of their image until its id is known."""

    notes: list[str] = field(default_factory=list)
    strays: list[Stray] = field(default_factory=list)


def list_folder(root: Path) -> Listing:
    """Find the images of a folder and the mask of each; two images or two masks of one name are strays.

    Raises:
        DataError: no picture, or folders of which it cannot be told which one is meant.
    """
    margin = Margin()
    samples = _by_sides(root, margin)
    if not samples:
        samples = _pair_folder(root, root, margin=margin)
    elif _child(root, _IMAGE_FOLDERS) is not None and (
        _child(root, _MASK_FOLDERS) is not None or all(sample.split == "test" for sample in samples)
    ):
        # images/ (and masks/) beside test/ (and val/): they are what is left to learn from.
        side: SplitName | None = "train" if any(sample.split == "val" for sample in samples) else None
        samples += [replace(one, split=one.split or side) for one in _pair_folder(root, root, margin=margin)]
    _note_unused(samples, root, margin)
    if not samples:
        raise DataError(
            "holds no pictures",
            mend="name a folder with images/ and masks/, or with train/ val/ test/ that hold them",
            file=root,
        )
    different, twins = told_apart(samples, root=root)
    id_of = {sample.image: sample.id for sample in different}
    strays = [replace(stray, id=id_of.get(stray.id, stray.id)) for stray in margin.strays] + twins
    hint = find_classes(root)
    files = () if hint is None or hint.file is None else (hint.file,)
    return Listing(
        root=root, format="folder", samples=different, notes=tuple(margin.notes), hint=hint, files=files,
        strays=tuple(strays),
    )  # fmt: skip


def takes_for_mask(image: Path, mask: Path) -> bool:
    """Whether a file would be read as the mask of an image, should the folder above both be trained on."""
    if mask.parent == image.parent:
        bare = {name for name in _mask_names(mask.stem) if name != mask.stem}
        return mask.stem == image.stem or not bare.isdisjoint(_names_of(image.stem))
    apart = next(place for place, pair in enumerate(zip(image.parts, mask.parts, strict=False)) if pair[0] != pair[1])
    (its, *below), (other, *beside) = image.parts[apart:], mask.parts[apart:]
    if not beside:
        return False
    names = set(_mask_names(Path(*beside).with_suffix("").as_posix()))
    if not below:  # the image lies beside the folder of masks
        return other.lower() in _MASK_FOLDERS and not names.isdisjoint(_names_of(image.stem))
    its_names = _names_of(Path(*below).with_suffix("").as_posix())
    return _mean_a_pair(its.lower(), other.lower()) and not names.isdisjoint(its_names)


def _names_of(stem: str) -> tuple[str, str, str]:
    """How the mask of an image may be called: as it, or without what says that it is an image."""
    return stem, _IMAGE_ENDING.sub("", stem), _IMAGE_START.sub(r"\1", stem)


def _mask_names(stem: str) -> tuple[str, str, str, str]:
    """How the image of a mask may be called: as it, or without what says that it is a mask."""
    start = _MASK_START.sub(r"\1", stem)
    return stem, _MASK_ENDING.sub("", stem), start, _MASK_ENDING.sub("", start)


def _side_in(name: str) -> str:
    """`train` of `train_images`."""
    return _OF_A_SIDE.sub("", name)


def _mean_a_pair(images: str, masks: str) -> bool:
    side = _side_in(images)
    beside = side in SPLIT_WORDS and masks.startswith(side) and _BESIDE.fullmatch(masks[len(side) :])
    voc = (images, masks) == ("jpegimages", "segmentationclass")
    return bool(beside) or voc or (images in _IMAGE_FOLDERS and masks in _MASK_FOLDERS)


def _note_unused(samples: list[Sample], root: Path, margin: Margin) -> None:
    """Nothing is left aside in silence."""
    known = {name for sample in samples for name in (sample.image, sample.mask) if name is not None}
    known |= {stray.id for stray in margin.strays}
    places = sorted({name.partition("/")[0] for name in known if "/" in name})
    loose = [path for path in pictures_below(root, recursive=False) if path.name not in known]
    if loose:
        beside = some([f"{place}/" for place in places])
        margin.notes.append(f"{len(loose)} picture{'s' * (len(loose) > 1)} beside {beside} not used")
    for folder in subfolders(root):
        if folder.name not in places and (left := len(_pictures_if_readable(folder))):
            margin.notes.append(f"{left} picture{'s' * (left > 1)} in {folder.name}/ not used")


def _pictures_if_readable(folder: Path) -> list[Path]:
    try:
        return pictures_below(folder)
    except DataError:
        return []  # a folder that is not needed need not be whole


def _by_sides(root: Path, margin: Margin) -> list[Sample]:
    """The samples of train/, val/ and test/; none where the folder has no such sides.

    Raises:
        DataError: two folders mean the same.
    """
    folders: dict[str, Path] = {}
    for child in subfolders(root):
        first = folders.setdefault(child.name.lower(), child)
        if first is not child and child.name.lower() in SPLIT_WORDS:
            raise _mean_the_same([first, child], root)
    samples: list[Sample] = []
    for key, folder in folders.items():
        name = _side_in(key)
        side = SPLIT_WORDS.get(name)
        if side is None or (name != key and name in folders):
            continue
        beside = [
            other for key, other in folders.items() if key.startswith(name) and _BESIDE.fullmatch(key[len(name) :])
        ]
        if len(beside) > 1:
            raise _mean_the_same(beside, root)
        found = (
            _pair_lists(folder, beside[0], root=root, margin=margin)
            if beside
            else _pair_folder(folder, root, margin=margin)
        )
        samples += [replace(sample, id=f"{folder.name}/{sample.id}", split=side) for sample in found]
    return samples


def _pair_folder(folder: Path, root: Path, *, margin: Margin) -> list[Sample]:
    """Pair what lies in one folder: images/ with masks/, or pictures side by side."""
    images, masks = _child(folder, _IMAGE_FOLDERS), _child(folder, _MASK_FOLDERS)
    if images is not None and masks is not None:
        return _sides_inside(_pair_lists(images, masks, root=root, margin=margin))
    if masks is not None and pictures_below(folder, recursive=False):
        return _pair(
            pictures_below(folder, recursive=False),
            pictures_below(masks),
            folders=(folder, masks),
            root=root,
            margin=margin,
        )
    if images is not None:
        margin.notes.append(
            f"{images.relative_to(root).as_posix()} has no folder of masks beside it: images are taken as unlabelled"
        )
        return _pair(pictures_below(images), [], folders=(images, images), root=root, margin=margin)
    return _side_by_side(folder, root, margin=margin)


def _pair_lists(images: Path, masks: Path, *, root: Path, margin: Margin) -> list[Sample]:
    return _pair(pictures_below(images), pictures_below(masks), folders=(images, masks), root=root, margin=margin)


def _child(folder: Path, menu: list[str]) -> Path | None:
    """The one subfolder whose name is in the menu.

    Raises:
        DataError: there are two of them.
    """
    found = [child for child in subfolders(folder) if child.name.lower() in menu]
    if len(found) > 1:
        raise _mean_the_same(found, folder)
    return found[0] if found else None


def _mean_the_same(children: list[Path], folder: Path) -> DataError:
    names = " and ".join(child.name for child in children)
    mend = "keep one of them, or write a CSV manifest"
    return DataError(f"holds {names}, which mean the same", mend=mend, file=folder)


def _sides_inside(samples: list[Sample]) -> list[Sample]:
    """Where all ids start with a side (images/train/...), the source is divided so."""
    sides = [_side_of(sample) for sample in samples]
    if any(side is None for side in sides):
        return samples
    return [replace(sample, split=side) for sample, side in zip(samples, sides, strict=True)]


def _side_of(sample: Sample) -> SplitName | None:
    first, slash, _ = sample.id.partition("/")
    return SPLIT_WORDS.get(first.lower()) if slash else None


def _side_by_side(folder: Path, root: Path, *, margin: Margin) -> list[Sample]:
    """Pictures in one folder: those whose name is another's plus `_mask` or the like are masks."""
    pictures = pictures_below(folder)
    _require_no_mask_folders(pictures, folder)
    names = {name for path in pictures for name in _names_of(_stem(path, folder))}
    masks = [path for path in pictures if _is_named_like_a_mask(_stem(path, folder), names)]
    images = sorted(set(pictures) - set(masks))
    return _pair(images, masks, folders=(folder, folder), root=root, margin=margin)


def _require_no_mask_folders(pictures: list[Path], folder: Path) -> None:
    """A folder above several sets would be taken for pictures to predict, masks and all.

    Raises:
        DataError: naming the folder of masks.
    """
    for path in pictures:
        above = path.relative_to(folder).parts[:-1]
        if any(name.lower() in _MASK_FOLDERS for name in above):
            raise DataError(
                f"holds masks in '{path.parent.relative_to(folder).as_posix()}' and no images/ at its top",
                mend="name the folder that holds images/ and masks/, or train/ and val/, directly",
                file=folder,
            )


def _stem(path: Path, folder: Path) -> str:
    return without_ending(path, below=folder)


def _is_named_like_a_mask(stem: str, names: set[str]) -> bool:
    return any(name != stem and name in names for name in _mask_names(stem))


def _pair(
    images: list[Path], masks: list[Path], *, folders: tuple[Path, Path], root: Path, margin: Margin
) -> list[Sample]:
    """Match masks to images by name; an image with two masks gets the first, and is a stray."""
    stems = [_stem(path, folders[0]) for path in images]
    known = {name for stem in stems for name in _names_of(stem)}
    by_name: defaultdict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        stem = _stem(mask, folders[1])
        # An image may itself be called `a_L`: then the mask `a_L` is its own and not that of `a`.
        by_name[next((name for name in _mask_names(stem) if name in known), stem)].append(mask)
    samples, taken = [], set()
    for image, stem in zip(images, stems, strict=True):
        found = next((by_name[name] for name in _names_of(stem) if name in by_name), [])
        if len(found) > 1:
            both = " and ".join(f"'{mask.relative_to(root).as_posix()}'" for mask in found[:2])
            name = image.relative_to(root).as_posix()
            error = DataError(f"image '{name}' has two masks, {both}", mend="keep one of them", file=root)
            margin.strays.append(Stray("double_mask", name, error))
        taken.update(found)
        mask_name = found[0].relative_to(root).as_posix() if found else None
        samples.append(Sample(id=stem, image=image.relative_to(root).as_posix(), mask=mask_name))
    left = [mask.relative_to(root).as_posix() for mask in masks if mask not in taken]
    if left:
        margin.notes.append(f"{len(left)} mask{'s' * (len(left) > 1)} without an image, not used: {some(left)}")
    for name in left:
        error = DataError(f"mask '{name}' has no image", mend="put the image back or delete the mask", file=root)
        margin.strays.append(Stray("missing_image", name, error, harmless=True))
    return samples
