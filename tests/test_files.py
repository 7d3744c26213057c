from __future__ import annotations

import contextlib
import json
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from segwright import files
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
    real,
    write_arrays,
    write_csv,
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


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\ufeff", "\r", "\xa0", "\U0001f600", "\x00"])
def test_yaml_keeps_every_sign(tmp_path: Path, mark: str) -> None:
    tree = {f"next{mark}line": [f"{mark}a", f"b{mark}", mark]}
    write_yaml(tmp_path / "tree.yaml", tree)
    assert read_yaml(tmp_path / "tree.yaml") == tree


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"a": 1, "b": {"x": 1, "x": 2}}', "'x' stands twice"),
        ("a.json", "[" * 100_000, "without end"),
        ("a.json", "1" * 5000, "4300 digits"),
        ("a.yaml", "a: {x: 1, x: 2}", "'x' stands twice"),
        ("a.yaml", "a: 1\nb: 2\na: 3\n", "'a' stands twice"),
        ("a.yaml", "[" * 700, "without end"),
        ("a.yaml", "a: 2024-13-45", "month"),
        ("a.yaml", "? [a, b]\n: 1\n", "unhashable"),
        ("a.yaml", "a: 1\n---\nb: 2\n", "document"),
    ],
)
def test_trees_that_would_lose_something_are_refused(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        (read_json if name.endswith("json") else read_yaml)(tmp_path / name)
    assert caught.value.file == str(tmp_path / name)


def test_yaml_aliases_and_kinds_of_keys(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n1: number\n'1': text\n")
    tree = read_yaml(tmp_path / "a.yaml")
    assert tree == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}, 1: "number", "1": "text"}
    (tmp_path / "a.yaml").write_text("a: &a [*a]\n")
    assert isinstance(read_yaml(tmp_path / "a.yaml")["a"], list)
    (tmp_path / "a.yaml").write_text("")
    assert read_yaml(tmp_path / "a.yaml") is None


@example([["", "\r"], ["a\rb", "a\r\nb"]])
@given(st.lists(st.lists(st.text(max_size=6) | st.integers(), min_size=2, max_size=2), max_size=4))
def test_a_table_holds_no_formula(rows: list[list[str | int]]) -> None:
    import csv
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder) / "t.csv", rows)
        with (Path(folder) / "t.csv").open(encoding="utf-8", newline="") as stream:
            read = list(csv.reader(stream))
    assert [[cell.removeprefix("'") for cell in row] for row in read] == [
        [str(cell).removeprefix("'") for cell in row] for row in rows
    ]
    texts = [cell for row, given_row in zip(read, rows, strict=True) for cell, was in zip(row, given_row, strict=True)
             if isinstance(was, str)]  # fmt: skip
    formulas = [text for text in texts if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))]
    assert all(re.fullmatch(r"[+-][0-9]+(\.[0-9]+)?", text) for text in formulas)


def test_numbers_in_a_table(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [["a", "b"], [0.5, float("nan")], [-3, -0.25], ["-0.5", "+1"], ["-1+1", "-.5"]])
    assert (tmp_path / "t.csv").read_text() == "a,b\n0.500000,\n-3,-0.250000\n-0.5,+1\n'-1+1,'-.5\n"
    write_csv(tmp_path / "t.csv", [[np.float64(-1), np.int64(-1)]])
    assert (tmp_path / "t.csv").read_text() == "-1.000000,-1\n"


@given(
    kind=st.sampled_from(["npz", "npy", "png", "jpg", "tif"]),
    place=st.floats(0, 1), flip=st.integers(1, 255), keep=st.floats(0, 1) | st.just(1.0),
)  # fmt: skip
def test_damage_is_told_whatever_it_is(
    tmp_path_factory: pytest.TempPathFactory, kind: str, place: float, flip: int, keep: float
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"a.{kind}"
    pixels = np.arange(400, dtype=np.uint8).reshape(20, 20)
    if kind == "npz":
        np.savez_compressed(path, images=pixels[None])
    elif kind == "npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    content = bytearray(path.read_bytes()[: max(1, int(keep * path.stat().st_size))])
    content[int(place * (len(content) - 1))] ^= flip
    path.write_bytes(content)
    with warnings.catch_warnings(), contextlib.suppress(DataError):
        warnings.simplefilter("ignore")  # what Pillow and zipfile say on the way
        (read_arrays if kind.startswith("np") else read_image)(path)


def test_a_large_picture_is_announced_once(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setattr("segwright.files.images.LARGE_IMAGE_PIXELS", 99)
    for name in ("a.png", "b.png"):
        Image.new("L", (10, 10)).save(tmp_path / name)
        read_image(tmp_path / name)
    Image.new("L", (3, 3)).save(tmp_path / "small.png")
    read_image(tmp_path / "small.png")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.png'}: 10 x 10 pixels take up to 0.0 GiB to read"
    ]


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(DataError, match="symbolic links"):
        read_image(tmp_path / "a.png")
    assert real(tmp_path / "a.png") == real(tmp_path) / "a.png"
    (tmp_path / "b.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match="a link to a file that is not there"):
        read_image(tmp_path / "b.png")


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("é" * 127), "x")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("large", [False, True], ids=["in one piece", "by NumPy"])
def test_arrays_of_every_kind_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    monkeypatch.setattr("segwright.files.arrays._SMALL_BYTES", 0 if large else 1 << 20)
    told = {
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "none": np.zeros((0, 3)), "one": np.array(3.5),
        "words": np.array(["ab", "ö"]), "big_endian": np.arange(3, dtype=">i4"), "empty": np.array(["", ""]),
        "fields": np.zeros(2, dtype=[("x", "i4"), ("y", "f8")]), "file.npy": np.array([True]),
    }  # fmt: skip
    write_arrays(tmp_path / "a.npz", told)
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == list(told)
    for key, array in told.items():
        one = found[key]
        np.testing.assert_array_equal(one, array, err_msg=key)
        assert (one.dtype, one.flags.f_contiguous, one.flags.writeable) == (array.dtype, array.flags.f_contiguous, True)


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


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1"])
def test_large_pictures_are_read_in_strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (37, 23, 3), dtype=np.uint8)).convert(mode)
    path = tmp_path / "p.png"
    picture.save(path)
    whole = files.read_image(path), files.read_raw_mask(path)
    monkeypatch.setattr("segwright.files.images._STRIP_BYTES", 200)
    for image, strips in zip(whole, (files.read_image(path), files.read_raw_mask(path)), strict=True):
        np.testing.assert_array_equal(image, strips)
    shown = np.asarray(picture.convert("L" if mode in ("L", "LA", "1") else "RGB"))
    np.testing.assert_array_equal(whole[0][0], shown if shown.ndim == 2 else shown[:, :, 0])


def test_headers_tell_palette_and_size(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg")
    Image.new("P", (4, 4)).save(tmp_path / "mask.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert [files.decoded_bytes(tmp_path / name) for name in ("photo.jpg", "mask.png", "broken.png", "none.png")] == [
        8 * 600, 8 * 16, 0, 0,
    ]  # fmt: skip
    assert files.read_palette(tmp_path / "photo.jpg") is None
    assert files.read_palette(tmp_path / "mask.png") is not None


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
    Image.new("1", (8, 8)).save(tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(DataError, match=f"claims {side} x {side} pixels"):
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
