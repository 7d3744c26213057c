from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.errors import DataError, OutputError
from segwright.files import (
    MAX_IMAGE_PIXELS,
    atomic,
    confined,
    digest,
    read_arrays,
    read_image,
    read_json,
    read_raw_mask,
    read_yaml,
    write_arrays,
    write_json,
    write_mask,
    write_text,
    write_yaml,
)


def picture(path: Path, array: np.ndarray, *, mode: str | None = None, exif_turn: int | None = None) -> Path:
    image = Image.fromarray(array)
    if mode is not None:
        image = image.convert(mode)
    exif = Image.Exif()
    if exif_turn is not None:
        exif[0x0112] = exif_turn
    image.save(path, exif=exif)
    return path


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def half() -> None:
        with atomic(target) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken"):
        write_text(tmp_path / "taken", "x")


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": "é"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1.5, None], "c": "é"}


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8) | st.booleans(), max_size=4))
def test_yaml_and_json_come_back(tree: dict[str, object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for write, read in ((write_yaml, read_yaml), (write_json, read_json)):
            write(Path(folder) / "tree", tree)
            assert read(Path(folder) / "tree") == tree


def test_arrays_come_back_and_objects_are_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"x": np.arange(6).reshape(2, 3)})
    assert read_arrays(tmp_path / "a.npz")["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        read_arrays(tmp_path / "objects.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:40])
    with pytest.raises(DataError, match=r"cut\.npz"):
        read_arrays(tmp_path / "cut.npz")
    with pytest.raises(DataError, match=r"absent\.npz"):
        read_arrays(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [
        ("L", 1, np.uint8),
        ("1", 1, np.uint8),
        ("RGB", 3, np.uint8),
        ("RGBA", 4, np.uint8),
        ("P", 3, np.uint8),
        ("I;16", 1, np.uint16),
    ],
)
def test_images_of_every_mode(tmp_path: Path, rng: np.random.Generator, mode: str, channels: int, dtype: type) -> None:
    if mode == "I;16":
        path = picture(tmp_path / "a.png", rng.integers(0, 65535, (5, 7), dtype=np.uint16))
    else:
        path = picture(tmp_path / "a.png", rng.integers(0, 255, (5, 7, 3), dtype=np.uint8), mode=mode)
    image = read_image(path)
    assert image.shape == (channels, 5, 7)
    assert image.dtype == dtype


def test_exif_rotation_turns_image_and_mask_alike(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = picture(tmp_path / "a.png", array, exif_turn=6)
    assert np.array_equal(read_image(path)[0], np.rot90(array, -1))
    assert np.array_equal(read_raw_mask(path), np.rot90(array, -1))


def test_many_bands_and_deep_colours(tmp_path: Path, rng: np.random.Generator) -> None:
    bands = rng.integers(0, 65535, (7, 11, 13), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="minisblack")
    assert np.array_equal(read_image(tmp_path / "bands.tif"), bands)
    deep = rng.integers(0, 65535, (11, 13, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "deep.tif"), deep.transpose(2, 0, 1))
    plain = rng.integers(0, 255, (11, 13, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "plain.tif", plain, photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "plain.tif"), plain.transpose(2, 0, 1))


def test_sixteen_bit_colours_keep_all_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    for channels in (3, 4):
        deep = rng.integers(0, 65535, (9, 11, channels), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / "deep.png"), deep)
        order = [2, 1, 0, 3][:channels]
        assert np.array_equal(read_image(tmp_path / "deep.png"), deep.transpose(2, 0, 1)[order])


def test_compressed_bands_and_a_fourth_band_are_kept(tmp_path: Path, rng: np.random.Generator) -> None:
    bands = rng.integers(0, 65535, (6, 11, 13), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "lzw.tif", bands, photometric="minisblack", compression="lzw")
    assert np.array_equal(read_image(tmp_path / "lzw.tif"), bands)
    infrared = rng.integers(0, 255, (11, 13, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "nir.tif", infrared, photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(read_image(tmp_path / "nir.tif"), infrared.transpose(2, 0, 1))


def test_palette_masks_keep_their_indices(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)
    write_mask(tmp_path / "m.png", mask, np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], dtype=np.uint8))
    assert np.array_equal(read_raw_mask(tmp_path / "m.png"), mask)
    assert Image.open(tmp_path / "m.png").convert("RGB").getpixel((1, 0)) == (200, 0, 0)


@pytest.mark.parametrize("kind", ["absent", "empty", "cut", "text"])
def test_a_damaged_picture_is_one_clear_error(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    path = tmp_path / "a.jpg"
    picture(path, rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = {"empty": b"", "cut": path.read_bytes()[:900], "text": b"no picture"}.get(kind)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for read in (read_image, read_raw_mask):
        with pytest.raises(DataError, match=r"a\.jpg"):
            read(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    side = int(MAX_IMAGE_PIXELS**0.5) + 8
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="pixels"):
        read_image(tmp_path / "bomb.png")


def test_paths_stay_inside(tmp_path: Path) -> None:
    assert confined(tmp_path, "a/b.png") == tmp_path / "a/b.png"
    for outside in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(DataError, match="leaves"):
            confined(tmp_path, outside)


def test_digests_tell_files_apart(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "a")
