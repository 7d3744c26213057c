"""Files as they should not be: small generated ones that `bad_inputs` sets before the command line.

Every function takes the folder in which the command is called, and writes into it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from segwright.data.card import read_card
from segwright.data.sources import open_source
from segwright.files import read_image

SIZE = 32
Make = Callable[[Path], object]


def photos(home: Path, *, count: int = 6) -> Path:
    """`count` pictures a.png, b.png ... with masks of the classes 0, 1 and 2."""
    rng = np.random.default_rng(0)
    root = home / "photos"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for letter in "abcdefghijkl"[:count]:
        mask = np.repeat(np.sort(rng.integers(0, 3, SIZE)), SIZE).reshape(SIZE, SIZE).astype(np.uint8)
        mask[:3] = np.arange(3)[:, None]
        image = (mask * 80)[..., None] + rng.integers(0, 60, (SIZE, SIZE, 3))
        write(root / "images" / f"{letter}.png", image.astype(np.uint8))
        write(root / "masks" / f"{letter}.png", mask)
    return root


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def flat(value: int, *, rows: int = SIZE) -> np.ndarray:
    return np.full((rows, SIZE), value, dtype=np.uint8)


def some_noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)


def but(*changes: Callable[[Path], object]) -> Make:
    """Photos, changed; each change gets photos/."""

    def make(home: Path) -> None:
        root = photos(home)
        for change in changes:
            change(root)

    return make


def both(*makes: Make) -> Make:
    """One after the other; only the first one may write photos."""

    def make(home: Path) -> None:
        for one in makes:
            one(home)

    return make


def masks_but(change: Callable[[np.ndarray, str], np.ndarray]) -> Make:
    """Photos whose masks are changed one by one; the change gets the mask and its letter."""

    def make(home: Path) -> None:
        for path in sorted((photos(home) / "masks").iterdir()):
            with Image.open(path) as mask:
                changed = change(np.array(mask), path.stem)
            write(path, changed)

    return make


def cut(path: Path, share: float = 0.6) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def text(name: str, content: str) -> Make:
    """Photos, and a text beside them."""

    def make(home: Path) -> None:
        if not (home / "photos").exists():
            photos(home)
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content, encoding="utf-8")

    return make


def tree(name: str, content: object) -> Make:
    """Photos, and a JSON file beside them."""
    return text(name, json.dumps(content))


def sides(**members: list[str]) -> Make:
    """Photos, and their split."""
    return tree("split.json", members)


def arrays(**named: np.ndarray) -> Make:
    """An archive of arrays, photos.npz."""
    return lambda home: np.savez(home / "photos.npz", **named)  # type: ignore[arg-type]


def png(path: Path, *, width: int, height: int, whole: bool) -> None:
    """A black picture of one bit a pixel, written without drawing it; without `whole` the header promises it only."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer, pixels = zlib.compressobj(1), b""
    if whole:
        row = bytes(1 + -(-width // 8))
        pixels = b"".join(packer.compress(row * 100) for _ in range(height // 100))
        pixels += packer.compress(row * (height % 100)) + packer.flush()
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            stream.write(struct.pack(">I", len(data)) + kind + data)
            stream.write(struct.pack(">I", zlib.crc32(kind + data)))


def climbing_archive(home: Path) -> None:
    """An npz whose member would land above the folder if it were unpacked."""
    np.savez(home / "plain.npz", images=np.zeros((2, SIZE, SIZE, 3), dtype=np.uint8))
    with zipfile.ZipFile(home / "plain.npz") as old, zipfile.ZipFile(home / "photos.npz", "w") as new:
        new.writestr("../../images.npy", old.read("images.npy"))


def boastful_archive(home: Path, *, holds: int = 2 << 20) -> None:
    """An npz whose array claims two petabytes, and holds so many bytes."""
    stream = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (2_000_000, 32_000, 32_000)}
    np.lib.format.write_array_header_1_0(stream, claim)
    with zipfile.ZipFile(home / "photos.npz", "w") as archive:
        archive.writestr("images.npy", stream.getvalue() + bytes(holds))


def locked(place: str) -> Make:
    """Photos, and a place that only root may read."""
    return both(photos, lambda home: (home / place).chmod(0))


def fifo(root: Path) -> None:
    (root / "images/a.png").unlink()
    os.mkfifo(root / "images/a.png")


def bands(root: Path) -> None:
    """A picture of seven bands among those of three."""
    tifffile.imwrite(root / "images/z.tif", np.zeros((7, SIZE, SIZE), dtype=np.uint8), photometric="minisblack")
    write(root / "masks/z.png", flat(1))


def not_utf8(root: Path) -> None:
    (root / "images/a.png").rename(Path(os.fsdecode(os.fsencode(root) + b"/images/\xff.png")))


def same_picture(home: Path) -> None:
    shutil.copy(home / "photos/images/a.png", home / "photos/images/b.png")


def wide(home: Path) -> None:
    """Photos, and one of 102 megapixels whose longer side has 30,000, to be predicted some day."""
    png(photos(home) / "test/z.png", width=30_000, height=3400, whole=True)


def odd_names(home: Path) -> None:
    """Photos under names that break lines, tables and terminals, two of them to validate on."""
    root = photos(home, count=7)
    names = ["=1+1", "@two\nlines", "a blank", "Ж雪é", "-rf", "next\x85line", "a'b\"c"]
    for letter, name in zip("abcdefg", names, strict=True):
        for part in ("images", "masks"):
            (root / part / f"{letter}.png").rename(root / part / f"{name}.png")
    (home / "split.json").write_text(json.dumps({"train": names[2:], "val": names[:2]}))


def odd_classes(home: Path) -> None:
    """Photos of classes whose names hold HTML, commas and a formula; one mask counts nowhere."""
    root = photos(home)
    write(root / "masks/a.png", flat(255))
    (root / "classes.json").write_text(json.dumps(["<script>alert(1)</script>", "rock, wet", "=cmd()"]))
    (home / "split.json").write_text(json.dumps({"train": ["a", "b", "c", "d"], "val": ["e", "f"]}))


def readable_csv(home: Path) -> bool:
    """Whether the run named odd holds no formula in a table and no script in a page, and finds its images again."""
    run = home / "runs/odd"
    for path in run.glob("scores/*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
        if len({len(row) for row in rows}) > 1 or any(row[0].startswith(("=", "@", "+", "-")) for row in rows):
            return False
    pages = [(run / name).read_text(encoding="utf-8") for name in ("report.html", "bundle/card.md")]
    card, split = read_card(run / "data.yaml"), json.loads((run / "split.json").read_text(encoding="utf-8"))
    source = open_source(run / "data.yaml", names=card.classes)
    known = {sample.id for sample in source.samples}
    return not any("<script" in page for page in pages) and {one for side in split.values() for one in side} <= known


def pickled(path: Path) -> None:
    """A torch file that runs code when it is read carelessly."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {path.parent / 'was_run'}",)

    path.write_bytes(pickle.dumps(Bomb()))


def other_weights(path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3, 3)}, path)


def other_state(run: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.zeros(3, 3)}}, run / "resume.ckpt")


def damaged(change: Callable[[Path], object]) -> Make:
    """Photos, and a run that is changed; the change gets the run."""
    return both(photos, lambda home: change(home / "runs/first"))


def bundle(change: Callable[[dict], object]) -> Make:
    """A run whose bundle.json is changed."""

    def on(run: Path) -> None:
        index = run / "bundle/bundle.json"
        content = json.loads(index.read_text())
        change(content)
        index.write_text(json.dumps(content))

    return damaged(on)


def largest(base: Path) -> str:
    """Read a square of 30,000 pixels a side, and say what that took."""
    path = base / "square.png"
    png(path, width=30_000, height=30_000, whole=True)
    started = time.perf_counter()
    image = read_image(path)
    return (
        f"ok  a square of 30,000 pixels a side, read alone\n    {image.shape} in {time.perf_counter() - started:.1f} s"
    )
