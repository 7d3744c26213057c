"""Arrays in .npz or .npy files: two arrays (images, masks), or one that stacks image and mask.

    images (N, H, W), (N, H, W, C) or (N, C, H, W)     masks (N, H, W), (N, H, W, 1) or (N, 1, H, W)
    training_set (N, 2, H, W): plane 0 the image, plane 1 the mask     test_set (M, H, W): images without masks

Keys are read as words: a side (train, val, test) and a role (image, x, data; mask, y, label). An array of groups (N,)
and one of class names (K,) are taken along. Nothing is unpickled.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from segwright.data.sources.classes import ClassHint
from segwright.data.sources.listing import SPLIT_WORDS, ArrayTable, Listing
from segwright.errors import DataError, MaskError
from segwright.files import read_arrays
from segwright.types import Sample, SplitName

_IMAGE_WORDS = {"image", "images", "img", "imgs", "x", "data", "input", "inputs", "picture", "pictures", "photos"}
_MASK_WORDS = {
    "mask",
    "masks",
    "y",
    "label",
    "labels",
    "target",
    "targets",
    "gt",
    "annotation",
    "annotations",
    "seg",
    "segmentation",
}
_GROUP_WORDS = {"group", "groups"}
_NAME_WORDS = ({"classes"}, {"class", "names"}, {"label", "names"})
_MOST_LABELS_IN_A_STACK = 64
_SHOW = "save images and masks as numpy.savez(file, images=..., masks=...)"


def list_arrays(path: Path) -> Listing:
    """Read a .npz, a .npy, or a folder of .npy files.

    Args:
        path: the file or the folder.

    Raises:
        DataError: no array can be taken for images, the shapes do not fit, or the file holds Python objects.
        MaskError: a mask array holds fractions or is one-hot.
    """
    stored = _read(path)
    roles = {key: _role(key) for key in stored}
    table, samples, notes, lonely = ArrayTable(), [], [], []
    sides = sorted({side for side, _ in roles.values()}, key=_side_order)
    for side in sides:
        keys = {role: key for key, (its_side, role) in roles.items() if its_side == side and role != ""}
        twice = [key for key, role in roles.items() if role[0] == side and role[1] and keys[role[1]] != key]
        if twice:
            first, second = twice[0], keys[roles[twice[0]][1]]
            raise DataError(f"'{first}' and '{second}' play the same part", mend=_SHOW, file=path)
        if "image" in keys or "stack" in keys:
            samples += _side(stored, keys, side=side, table=table, path=path)
        elif "mask" in keys:
            lonely.append(keys["mask"])
    shapes = ", ".join(f"{key} {array.shape}" for key, array in stored.items())
    if not samples:
        raise DataError(f"holds no array of images (it holds {shapes or 'nothing'})", mend=_SHOW, file=path)
    if lonely:
        raise DataError(f"'{lonely[0]}' has no images of its side (it holds {shapes})", mend=_SHOW, file=path)
    unused = [key for key, (_, role) in roles.items() if role == ""]
    if unused:
        notes.append(f"arrays that are not used: {', '.join(sorted(unused))}")
    return Listing(
        root=path,
        format="arrays",
        samples=_named(samples),
        notes=tuple(notes),
        hint=_hint(stored, roles),
        arrays=table,
        files=tuple(sorted(path.glob("*.npy"))) if path.is_dir() else (path,),
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        return {file.stem: read_npy(file) for file in sorted(path.glob("*.npy"))}
    if path.suffix.lower() == ".npy":
        return {"array": read_npy(path)}
    return read_arrays(path)


def read_npy(path: Path) -> np.ndarray:
    """Map an .npy file into memory; only the rows that are read are loaded.

    Raises:
        DataError: the file is damaged or holds Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError):
        # The plain reader words every fault, and reads what cannot be mapped (an empty array).
        return read_arrays(path)["array"]


def _role(key: str) -> tuple[SplitName | None, str]:
    """The side and the role of an array by the words of its key: image, mask, stack, group, names, or '' for none."""
    if key in ("array", "arr_0", "arr_1"):
        return None, {"array": "stack", "arr_0": "image", "arr_1": "mask"}[key]
    words = [word for word in re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()) if word]
    side = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
    if any(menu <= set(words) for menu in _NAME_WORDS):
        return side, "names"
    for role, menu in (("mask", _MASK_WORDS), ("group", _GROUP_WORDS), ("image", _IMAGE_WORDS)):
        if menu & set(words):
            return side, role
    return side, "stack" if side is not None and set(words) <= {*SPLIT_WORDS, "set"} else ""


def names_images(key: str) -> bool:
    """Whether an array of that name would be taken for images."""
    return _role(key)[1] in ("image", "stack")


def _side_order(side: SplitName | None) -> int:
    return (None, "train", "val", "test").index(side)


def _side(
    stored: dict[str, np.ndarray], keys: dict[str, str], *, side: SplitName | None, table: ArrayTable, path: Path
) -> list[Sample]:
    """Lay out the arrays of one side in `table` and answer its samples, which still carry no id."""
    image_key = keys.get("image", keys.get("stack", ""))
    array, mask_key = stored[image_key], keys.get("mask")
    mask: np.ndarray | None = None
    if mask_key is not None:
        mask = _mask_rows(stored[mask_key], key=mask_key, path=path)
    elif "image" not in keys and _is_stack(array):
        mask_key, mask = image_key, _mask_rows(array[:, 1], key=image_key, path=path)
        array = array[:, 0]
    images = _image_rows(array, key=image_key, mask=mask, path=path)
    if mask is not None and (len(mask) != len(images) or mask.shape[1:] != images.shape[2:]):
        raise DataError(
            f"'{image_key}' {array.shape} and '{mask_key}' {mask.shape} do not fit",
            mend="give every image one mask of its own height and width",
            file=path,
        )
    table.images[image_key] = images
    if mask is not None and mask_key is not None:
        table.masks[mask_key], table.mask_of[image_key] = mask, mask_key
    groups = _groups(stored, keys.get("group"), count=len(images), path=path)
    return [
        Sample(id="", image=image_key, mask=mask_key, row=row, split=side, group=groups[row] if groups else None)
        for row in range(len(images))
    ]


def _is_stack(array: np.ndarray) -> bool:
    """Image and mask in one: two planes, the second of which holds few values."""
    if array.ndim != 4 or array.shape[1] != 2 or array.size == 0:
        return False
    return len(np.unique(array[:: max(1, len(array) // 200), 1])) <= _MOST_LABELS_IN_A_STACK


def _image_rows(array: np.ndarray, *, key: str, mask: np.ndarray | None, path: Path) -> np.ndarray:
    """A view as (N, C, H, W) of uint8, uint16 or float32."""
    if array.ndim not in (3, 4) or array.size == 0:
        raise DataError(
            f"'{key}' {array.shape} are no images", mend="use (N, H, W) or (N, H, W, C), N at least 1", file=path
        )
    if array.dtype.kind not in "buif":
        raise DataError(f"'{key}' is of type {array.dtype}", mend="save images as uint8, uint16 or float32", file=path)
    if array.ndim == 3:
        if mask is None and array.shape[2] in (3, 4):
            problem = f"'{key}' {array.shape} looks like one colour image"
            raise DataError(problem, mend="save it as (1, H, W, C)", file=path)
        return _plain_type(array[:, None])
    if mask is not None:
        last = array.shape[1:3] == mask.shape[1:3]
        if not last and array.shape[2:] != mask.shape[1:3]:
            return _plain_type(array)
    else:
        last = array.shape[3] <= 4 or array.shape[3] < array.shape[1]
    return _plain_type(array.transpose(0, 3, 1, 2) if last else array)


def _plain_type(array: np.ndarray) -> np.ndarray:
    """The smallest of uint8, uint16 and float32 that holds the values; a truth value becomes 0 or 255."""
    if array.dtype in (np.uint8, np.uint16, np.float32):
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind in "ui" and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint8 if array.max() <= 255 else np.uint16)
    return array.astype(np.float32)


def _mask_rows(array: np.ndarray, *, key: str, path: Path) -> np.ndarray:
    """A view as (N, H, W) of integers."""
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim != 3:
        raise MaskError(
            f"'{key}' {array.shape} are no masks",
            mend="save labels as (N, H, W); turn one-hot masks into labels with argmax",
            file=path,
        )
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int32)
        wrong = np.argwhere(whole != array)
        if len(wrong):
            value = array[tuple(wrong[0])]
            raise MaskError(
                f"'{key}' row {wrong[0][0]} holds {value:g}",
                mend="labels are whole numbers; round or re-export them",
                file=path,
            )
        return whole
    if array.dtype.kind not in "bui":
        raise MaskError(f"'{key}' is of type {array.dtype}", mend="save masks as whole numbers", file=path)
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _groups(stored: dict[str, np.ndarray], key: str | None, *, count: int, path: Path) -> list[str] | None:
    if key is None:
        return None
    if stored[key].shape != (count,):
        raise DataError(f"'{key}' {stored[key].shape} for {count} images", mend="give one group an image", file=path)
    return [str(group) for group in stored[key].tolist()]


def _named(samples: list[Sample]) -> tuple[Sample, ...]:
    """Ids are row numbers; the side stands before them where it is needed to tell arrays apart."""
    labelled = {sample.split for sample in samples if sample.mask is not None}
    all_sides = {sample.split for sample in samples}
    plain = next(iter(labelled)) if len(labelled) == 1 else None
    several = len(all_sides) > 1
    named = [
        Sample(
            id=f"{sample.row:05d}"
            if not several or (len(labelled) == 1 and sample.split == plain)
            else f"{sample.split or 'all'}/{sample.row:05d}",
            image=sample.image,
            mask=sample.mask,
            row=sample.row,
            group=sample.group,
            # One side is no division: what is left to divide must stay free, unless it is the test side.
            split=sample.split if sample.split == "test" or len(labelled) > 1 else None,
        )
        for sample in samples
    ]
    return tuple(sorted(named, key=lambda sample: sample.mask is None))


def _hint(stored: dict[str, np.ndarray], roles: dict[str, tuple[SplitName | None, str]]) -> ClassHint | None:
    for key, (_, role) in roles.items():
        if role == "names" and stored[key].ndim == 1 and stored[key].dtype.kind == "U" and stored[key].size:
            return ClassHint(tuple(str(name) for name in stored[key].tolist()))
    return None
