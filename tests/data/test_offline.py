"""Copies on disk: aligned, of training images alone, and a data set that trains."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segwright.augment import PRESETS, Policy
from segwright.data.new_set import Originals
from segwright.data.offline import Copies, write_copies
from segwright.data.pack import Pack, open_pack, pack_arrays
from segwright.data.sources import open_source
from segwright.errors import DataError, OutputError, RecipeError
from segwright.files import read_image, read_raw_mask, save_image
from segwright.types import ClassSet

CLASSES = ClassSet(
    names=("ground", "water", "rock"), colors=((9, 9, 9), (0, 0, 200), (200, 0, 0)), ignore_in_score=(0,)
)
SIZES = ((64, 96), (80, 50), (72, 72), (64, 96), (40, 90), (64, 64))
SPLIT = dict(zip("abcdef", ("train", "train", "train", "val", "test", "train"), strict=True))


def scene(number: int, *, channels: int = 3, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """An image whose values tell its labels, in blocks; class 2 stands in images a and c only."""
    rng = np.random.default_rng(number)
    blocks = rng.choice(np.array([0, 1, 255] if number % 2 else [0, 1, 2], dtype=np.uint8), (10, 12))
    mask = np.kron(blocks, np.ones((9, 9), np.uint8))[: SIZES[number][0], : SIZES[number][1]]
    return np.stack([coded(mask, band, dtype) for band in range(channels)]), mask


def coded(mask: np.ndarray, band: int, dtype: type) -> np.ndarray:
    return (
        mask.astype(dtype) * dtype(band % 2 or 0) + dtype(3) * (255 - mask).astype(dtype) * dtype(not band % 2)
    ).astype(dtype)


def originals(*, channels: int = 3, dtype: type = np.uint8, groups: Sequence[str | None] = (None,) * 6) -> Originals:
    pairs = [scene(n, channels=channels, dtype=dtype) for n in range(6)]
    pack: Pack = pack_arrays([image for image, _ in pairs], [mask for _, mask in pairs], ids=list("abcdef"))
    return Originals(pack, CLASSES, SPLIT, groups)


def rows_of(done: Copies) -> list[dict[str, str]]:
    with (done.folder / "manifest.csv").open() as stream:
        return list(csv.DictReader(stream))


def calm(mask: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 2, constant_values=77), (5, 5))
    return (windows == mask[:, :, None, None]).all(axis=(2, 3))


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16), (3, np.uint16), (2, np.uint8)]
)
def test_copies_stay_aligned_and_originals_are_the_same_pixels(tmp_path, channels, dtype):
    there = originals(channels=channels, dtype=dtype)
    policy = replace(PRESETS["copies"], scale=(1.7, 2.0), elastic_px=1.0, grid_distortion=0.05)
    done = write_copies(there, tmp_path / "out", count=9, policy=policy, progress=False)
    assert (done.copies, done.copied, done.originals) == (9, 4, 6)
    rows = rows_of(done)
    for row in rows:
        image = read_image(done.folder / row["image"])
        mask = read_raw_mask(done.folder / row["mask"])
        name = row["original"] or Path(row["image"]).stem
        i = there.pack.ids.index(name)
        assert image.dtype == dtype
        assert image.shape == (channels, *SIZES[i])
        assert set(np.unique(mask)) <= set(np.unique(there.pack.mask(i)))
        sure = calm(mask) if row["original"] else np.ones(mask.shape, bool)
        for band in range(channels):
            np.testing.assert_array_equal(image[band][sure], coded(mask, band, dtype)[sure])
        if not row["original"]:
            np.testing.assert_array_equal(image, there.pack.image(i))
            np.testing.assert_array_equal(mask, there.pack.mask(i))
    assert (done.folder / "contact-sheet.png").stat().st_size > 1000


def test_only_training_images_are_copied_and_groups_hold(tmp_path):
    there = originals(groups=["day 1", "day 1", None, None, "day 3", None])
    done = write_copies(there, tmp_path / "out", count=30, policy=PRESETS["copies"], progress=False)
    rows = rows_of(done)
    copies = [row for row in rows if row["original"]]
    assert {row["original"] for row in copies} == {"a", "b", "c", "f"}
    assert {row["split"] for row in copies} == {"train"}
    counts = [sum(row["original"] == name for row in copies) for name in "abcf"]
    assert max(counts) - min(counts) <= 1
    groups = {row["original"] or Path(row["image"]).stem: set() for row in rows}
    for row in rows:
        groups[row["original"] or Path(row["image"]).stem].add(row["group"])
    assert groups["a"] == groups["b"] == {"day 1"}
    assert groups["c"] == {"c"}
    assert all(len(json.loads(row["parameters"])["matrix"]) == 2 for row in copies)


def test_copies_for_a_class_hold_it(tmp_path):
    policy = Policy(scale=(2.5, 3.0), translate=0.3)
    done = write_copies(
        originals(), tmp_path / "out", count=20, policy=policy, only_classes=["rock"], copies_only=True, progress=False
    )
    rows = rows_of(done)
    assert {row["original"] for row in rows} == {"a", "c"}
    assert all((read_raw_mask(done.folder / row["mask"]) == 2).any() for row in rows)
    assert done.originals == 0


def test_the_result_is_read_as_a_data_set(tmp_path):
    done = write_copies(originals(), tmp_path / "out", count=5, policy=PRESETS["copies"], progress=False)
    source = open_source(done.card)
    assert source.classes == CLASSES
    assert len(source.samples) == 11
    assert [sample.split for sample in source.samples].count("train") == 4 + 5
    pack = open_pack(source, cache=tmp_path / "cache", progress=False)
    i = pack.ids.index("images/a")
    np.testing.assert_array_equal(pack.image(i), originals().pack.image(0))
    np.testing.assert_array_equal(pack.mask(i), originals().pack.mask(0))


def test_the_same_seed_writes_the_same_copies(tmp_path):
    def written(name: str, seed: int) -> list[bytes]:
        done = write_copies(
            originals(), tmp_path / name, count=4, policy=PRESETS["copies"], seed=seed, copies_only=True, progress=False
        )
        return [path.read_bytes() for path in sorted((done.folder / "images").iterdir())]

    assert written("one", 1) == written("two", 1)
    assert written("three", 2) != written("one-again", 1)


def test_what_cannot_be_done_leaves_nothing_behind(tmp_path, monkeypatch):
    there, policy = originals(), PRESETS["copies"]
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="there already"):
        write_copies(there, tmp_path / "out", count=1, policy=policy, progress=False)
    with pytest.raises(RecipeError, match="rok"):
        write_copies(there, tmp_path / "new", count=1, policy=policy, only_classes=["rok"], progress=False)
    none = replace(there, split=dict.fromkeys("abcdef", "val"))
    with pytest.raises(DataError, match="no labelled training image"):
        write_copies(none, tmp_path / "new", count=1, policy=policy, progress=False)

    def full(path, image, *, sync):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segwright.data.new_set.save_image", full)
    with pytest.raises(OutputError, match="No space left"):
        write_copies(there, tmp_path / "new", count=1, policy=policy, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_saved_images_are_read_back(rng, tmp_path, channels, dtype):
    image = (rng.random((channels, 20, 31)) * 60_000).astype(dtype)
    path = save_image(tmp_path / "one.two", image)
    assert path.name.startswith("one.two.")
    back = read_image(path)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, image)
