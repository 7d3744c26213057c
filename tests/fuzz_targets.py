"""What fuzzing feeds: each reader as a function of bytes, with valid files to start from.

A reader may give something back or refuse with a `SegwrightError`; anything else is a finding. They are fed for minutes
by `tests/endurance/fuzz.py`; `tests/test_fuzz_findings.py` feeds what was found again on every run.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from segwright.bundle import load_bundle, save_bundle
from segwright.data.sources import open_source
from segwright.data.splits import find_groups, read_split
from segwright.errors import SegwrightError
from segwright.files import read_image
from segwright.models import ModelSpec, build_model
from segwright.recipe import Recipe, override, read_recipe
from segwright.types import ClassSet

SIDE = 12


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        feed: reads the bytes as a file of its kind.
        seeds: valid files.
    """

    feed: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@cache
def _folder() -> Path:
    """A small source, a bundle, and a place for the bytes; one a process."""
    root = Path(tempfile.mkdtemp(prefix="segwright-fuzz-"))
    rng = np.random.default_rng(0)
    for place in ("photos/{}/a.png", "photos/{}/b.png", "alone/{}/a.png"):
        for kind, array in (
            ("images", rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)),
            ("masks", rng.integers(0, 3, (SIDE, SIDE), dtype=np.uint8)),
        ):
            path = root / place.format(kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    model = build_model(ModelSpec("unet", 3, 3, arguments={"depth": 2, "width": 4}))
    classes = ClassSet(("sky", "soil", "rock"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)))
    save_bundle(root / "bundle", model, classes=classes, info={"score": None, "licences": []})
    return root


def _written(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@contextmanager
def _in_place_of(name: str, data: bytes) -> Iterator[None]:
    """A file of the small source or bundle, replaced for a while."""
    path = _folder() / name
    valid = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(valid)


def _mask(data: bytes) -> None:
    with _in_place_of("alone/masks/a.png", data):
        source = open_source(_folder() / "alone")
        source.read(source.samples[0])


def _image(suffix: str) -> Callable[[bytes], None]:
    return lambda data: _ignored(read_image(_written(f"picture.{suffix}", data)))


def _ignored(value: object) -> None:
    assert value is not None


def _card(data: bytes) -> None:
    open_source(_written("card.yaml", data))


def _recipe(data: bytes) -> None:
    read_recipe(_written("recipe.yaml", data))


def _override(data: bytes) -> None:
    override(Recipe(), data.decode("utf-8", "replace").split("\n"))


def _manifest(data: bytes) -> None:
    open_source(_written("table.csv", data))


def _split(data: bytes) -> None:
    read_split(_written("split.json", data), ("a", "b", "00003", "x/c"))


def _groups(data: bytes) -> None:
    find_groups(("00000", "00001"), str(_written("groups.json", data)))


def _arrays(data: bytes) -> None:
    source = open_source(_written("arrays.npz", data))
    source.read(source.samples[0])


def _bundle_index(data: bytes) -> None:
    with _in_place_of("bundle/bundle.json", data):
        load_bundle(_folder() / "bundle")


def _bundle_weights(data: bytes) -> None:
    with _in_place_of("bundle/model.safetensors", data):
        load_bundle(_folder() / "bundle")


def _picture(mode: str, kind: str) -> bytes:
    rng = np.random.default_rng(1)
    shape = (SIDE, SIDE, 3) if mode == "RGB" else (SIDE, SIDE)
    array = rng.integers(0, 2, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
    picture = Image.fromarray(array) if mode in ("RGB", "L", "I;16") else Image.fromarray(array).convert(mode)
    stream = io.BytesIO()
    picture.save(stream, format=kind)
    return stream.getvalue()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _trees(trees: list[object]) -> list[bytes]:
    return [json.dumps(tree).encode() for tree in trees]


def _splits() -> list[bytes]:
    return _trees([{"train": ["a"], "val": ["b", 3]}, {"train": ["c.png"], "val": ["b"], "test": ["a"]}])


def _cards() -> list[bytes]:
    card = {
        "source": "photos", "format": "folder", "classes": ["sky", "soil", "rock"],
        "colors": [[0, 0, 0], [1, 2, 3], [9, 9, 9]],
        "mask_values": [0, 1, 2], "void_values": [255], "ignore_in_score": ["sky"],
        "split": {"train": ["a"], "val": ["b"]}, "groups": "(.)", "dropped": {},
    }  # fmt: skip
    return [yaml.safe_dump(card).encode(), b"source: photos\n", b"source: photos\ndropped: {a: 'lens cap'}\n"]


def _images(kind: str) -> Callable[[], list[bytes]]:
    modes = ["RGB", "L"] if kind == "JPEG" else ["RGB", "L", "P", "1", "I;16"]
    return lambda: [_picture(mode, kind) for mode in modes]


TARGETS: dict[str, Target] = {
    "mask": Target(_mask, lambda: [_picture(mode, "PNG") for mode in ("L", "P", "RGB", "1")]),
    "png": Target(_image("png"), _images("PNG")),
    "jpeg": Target(_image("jpg"), _images("JPEG")),
    "tiff": Target(_image("tif"), _images("TIFF")),
    "card": Target(_card, _cards),
    "recipe": Target(_recipe, lambda: [yaml.safe_dump(Recipe().as_dict()).encode(), b"model: {name: unet}\n"]),
    "override": Target(_override, lambda: [b"model.name=unet\ntraining.epochs=3", b"augment.scale=[0.5, 2]"]),
    "manifest": Target(
        _manifest,
        lambda: [
            b"image,mask,split,group\nphotos/images/a.png,photos/masks/a.png,train,1\nphotos/images/b.png,,test,2\n"
        ],
    ),
    "split": Target(
        _split, lambda: _trees([{"train": ["a"], "val": ["b", 3]}, {"train": ["c.png"], "val": ["b"], "test": ["a"]}])
    ),
    "groups": Target(_groups, lambda: _trees([["x", "y"], {"00000": 1, "00001": "y"}])),
    "arrays": Target(
        _arrays,
        lambda: [
            _npz(
                {
                    "images": np.zeros((2, 8, 8, 3), np.uint8),
                    "masks": np.tile(np.arange(8, dtype=np.uint8) % 2, (2, 8, 1)),
                }
            ),
            _npz({"training_set": np.tile(np.arange(8, dtype=np.uint8) % 3, (2, 2, 8, 1))}),
        ],
    ),
    "bundle": Target(_bundle_index, lambda: [(_folder() / "bundle" / "bundle.json").read_bytes()]),
    "weights": Target(_bundle_weights, lambda: [(_folder() / "bundle" / "model.safetensors").read_bytes()[:4096]]),
}


def fault(target: str, data: bytes) -> BaseException | None:
    """What a reader raised that it must not raise; None where all is well."""
    try:
        TARGETS[target].feed(data)
    except SegwrightError as error:
        # One line for people, and no more.
        return None if "\n" not in str(error) else error
    except Exception as error:  # noqa: BLE001  # that is the question
        return error
    return None
