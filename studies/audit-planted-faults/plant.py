"""Plant known faults in a copy of CamVid, so that what an audit finds can be counted.

    FOLDER/photos/       the copy: train/ and val/, each with images/ and masks/
    FOLDER/data.yaml     the card that names its classes
    FOLDER/truth.json    what was planted: fault -> id -> what exactly

No image gets two faults, and the originals are only read. Moved masks keep the labels of their border where nothing is
left to move in, as void there would give them away.

python studies/audit-planted-faults/plant.py FOLDER
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segwright.data.card import write_card
from segwright.files import write_json

DATA = Path(os.environ.get("SEGWRIGHT_DATA") or Path(__file__).parents[3] / "shared" / "data")
NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
VOID = 11
CONFUSABLE = (("road", "pavement"), ("building", "tree"), ("building", "fence"), ("tree", "fence"), ("pole", "sign"))
ENOUGH = 0.01
"""Share of the image that each of two exchanged classes takes at least."""

SWAPPED, DUPLICATED = 30, 20
LEAST_PX, MOST_PX = 3, 10
KEPT = 0.95
"""Share of the width and of the height that a cropped copy keeps."""

JPEG_QUALITY = 70
TRUNCATED_AT = 0.6


@dataclass(frozen=True)
class Picture:
    """One image of the copy, with its mask.

    Attributes:
        id: as the audit names it.
        image: its file.
        mask: its file.
    """

    id: str
    image: Path
    mask: Path


def plant(source: Path, folder: Path, *, seed: int) -> dict[str, dict[str, Any]]:
    """Copy `source` to `folder`/photos, plant all faults there and return what was planted."""
    pictures = copied(source, folder / "photos")
    chance = random.Random(seed)
    chance.shuffle(pictures)
    truth: dict[str, dict[str, Any]] = {"swapped_classes": {}}
    for place in range(SWAPPED):
        a, b = (NAMES.index(name) for name in CONFUSABLE[place % len(CONFUSABLE)])
        one = next(picture for picture in pictures if holds_enough(picture, a, b))
        pictures.remove(one)
        truth["swapped_classes"][one.id] = swap(one, a, b)
    kinds: dict[str, tuple[int, Callable[[Picture, random.Random, int], Any]]] = {
        "shifted_mask": (40, shift),
        "noise_mask": (25, fill_with_noise),
        "truncated_image": (5, lambda picture, _chance, _place: truncate(picture.image)),
        "truncated_mask": (5, lambda picture, _chance, _place: truncate(picture.mask)),
        "wrong_size": (5, resize),
        "soft_mask": (10, soften),
    }
    for kind, (count, fault) in kinds.items():
        truth[kind] = {one.id: fault(one, chance, place) for place, one in enumerate(pictures[:count])}
        del pictures[:count]
    truth["duplicate"] = {}
    for place in range(DUPLICATED):
        side, other = (("train", "val"), ("val", "train"))[place % 2]
        one = next(picture for picture in pictures if picture.id.startswith(f"{side}/"))
        pictures.remove(one)
        new = duplicate(one, folder / "photos" / other, f"visit_{place:02}", chance)
        truth["duplicate"][new] = one.id
    return truth


def copied(source: Path, target: Path) -> list[Picture]:
    """Copy train/ and val/ of `source`."""
    found = []
    for image in sorted(source.glob("*/images/*")):
        side = image.parts[-3]
        mask = source / side / "masks" / f"{image.stem}.png"
        files = [target / side / "images" / image.name, target / side / "masks" / mask.name]
        for original, copy in zip((image, mask), files, strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, copy)
        found.append(Picture(f"{side}/{image.stem}", *files))
    return found


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def holds_enough(picture: Picture, a: int, b: int) -> bool:
    mask = read(picture.mask)
    return bool(min(np.mean(mask == a), np.mean(mask == b)) >= ENOUGH)


def swap(picture: Picture, a: int, b: int) -> list[str]:
    """Exchange two labels."""
    table = np.arange(256, dtype=np.uint8)
    table[[a, b]] = b, a
    Image.fromarray(table[read(picture.mask)]).save(picture.mask)
    return [NAMES[a], NAMES[b]]


def shift(picture: Picture, chance: random.Random, _place: int) -> dict[str, int]:
    """Move the mask by 3 to 10 pixels in any direction."""
    right = down = 0
    while not LEAST_PX <= np.hypot(right, down) <= MOST_PX:
        angle, far = chance.uniform(0, 2 * np.pi), chance.uniform(LEAST_PX, MOST_PX)
        right, down = round(far * np.cos(angle)), round(far * np.sin(angle))
    mask = read(picture.mask)
    rows, columns = mask.shape
    wide = np.pad(mask, MOST_PX, mode="edge")
    moved = wide[MOST_PX - down : MOST_PX - down + rows, MOST_PX - right : MOST_PX - right + columns]
    Image.fromarray(np.ascontiguousarray(moved)).save(picture.mask)
    return {"right": right, "down": down}


def fill_with_noise(picture: Picture, chance: random.Random, place: int) -> str:
    """Every second one holds all classes alike, the others their own pixels in another order."""
    mask, rng = read(picture.mask), np.random.default_rng(chance.getrandbits(32))
    if place % 2 == 0:
        noise, what = rng.integers(0, len(NAMES), mask.shape, dtype=np.uint8), "classes by chance"
    else:
        noise, what = rng.permutation(mask.ravel()).reshape(mask.shape), "its pixels in another order"
    Image.fromarray(noise).save(picture.mask)
    return what


def truncate(path: Path) -> str:
    content = path.read_bytes()
    path.write_bytes(content[: int(TRUNCATED_AT * len(content))])
    return f"{TRUNCATED_AT:.0%} of its bytes are left"


def resize(picture: Picture, _chance: random.Random, place: int) -> list[int]:
    """Five ways: half as large, turned, cut by a few pixels, a column less, twice as large."""
    mask = read(picture.mask)
    ways = (mask[::2, ::2], np.rot90(mask), mask[4:-4, 4:-4], mask[:, 1:], np.kron(mask, np.ones((2, 2), np.uint8)))
    changed = np.ascontiguousarray(ways[place % len(ways)])
    Image.fromarray(changed).save(picture.mask)
    return list(changed.shape)


def soften(picture: Picture, _chance: random.Random, place: int) -> str:
    """Scale the label values down and up again with smoothing; the result is a gray PNG as before."""
    with Image.open(picture.mask) as opened:
        mask = opened.copy()
    factor = (0.5, 0.7)[place % 2]
    small = mask.resize((round(mask.width * factor), round(mask.height * factor)), Image.Resampling.BILINEAR)
    small.resize(mask.size, Image.Resampling.BILINEAR).save(picture.mask)
    return f"scaled to {factor:.0%} and back"


def duplicate(picture: Picture, folder: Path, name: str, chance: random.Random) -> str:
    """Write a crop of an image to the other side, as JPEG, with its mask cropped alike; its id."""
    with Image.open(picture.image) as image, Image.open(picture.mask) as mask:
        width, height = round(KEPT * image.width), round(KEPT * image.height)
        left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
        box = (left, top, left + width, top + height)
        image.convert("RGB").crop(box).save(folder / "images" / f"{name}.jpg", quality=JPEG_QUALITY)
        mask.crop(box).save(folder / "masks" / f"{name}.png")
    return f"{folder.name}/{name}"


def main() -> None:
    """Plant and say how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--source", type=Path, default=DATA / "camvid", help="CamVid; only read")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.folder.exists():
        raise SystemExit(f"{asked.folder} stands there; name a new folder")
    truth = plant(asked.source, asked.folder, seed=asked.seed)
    card = {"source": str((asked.folder / "photos").resolve()), "classes": NAMES, "void_values": (VOID, 255)}
    write_card(asked.folder / "data.yaml", card)
    write_json(asked.folder / "truth.json", {"seed": asked.seed, "faults": truth})
    for kind, ones in truth.items():
        print(f"{len(ones):4} {kind}")


if __name__ == "__main__":
    main()
