"""Masks land where they belong, nothing of the user's is lost, and a stopped run can be repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segwright.bundle import Bundle
from segwright.errors import DataError, OutputError
from segwright.models import ModelSpec, build_model
from segwright.prediction.files import TABLE, predict_files
from segwright.prediction.predictor import Predictor
from segwright.types import ClassSet

CLASSES = ClassSet(("a", "b", "c"), ((10, 20, 30), (255, 0, 0), (0, 255, 0)))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="unet", in_channels=3, num_classes=3, encoder=None, arguments={"depth": 2, "width": 4},
        mean=(0.5,) * 3, std=(0.25,) * 3, scale=255.0, never_predict=(),
    )  # fmt: skip
    return Predictor(Bundle(build_model(spec).eval(), CLASSES, {}), device="cpu", precision="fp32", batch_size=2)


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "snaps"
    (folder / "north").mkdir(parents=True)
    for name, size in (("one.png", (20, 30)), ("two.jpg", (24, 16)), ("north/three.png", (20, 30))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    Image.fromarray(rng.integers(0, 256, (12, 14), dtype=np.uint8)).save(folder / "gray.png")
    return folder


def rows(table: Path) -> dict[str, dict]:
    return {row["id"]: row for row in map(json.loads, table.read_text().splitlines())}


def test_a_folder_becomes_masks_and_a_table(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    done = predict_files(predictor, photos, out=tmp_path / "masks", overlays=True)
    assert (done.images, done.failed, done.table) == (4, {}, tmp_path / "masks" / TABLE)
    table = rows(done.table)
    assert set(table) == {"one", "two", "gray", "north/three"}
    for name, row in table.items():
        with Image.open(tmp_path / "masks" / f"{name}.png") as mask, Image.open(photos / row["image"]) as image:
            assert mask.mode == "P"
            assert mask.size == image.size
            assert mask.getpalette()[:9] == [10, 20, 30, 255, 0, 0, 0, 255, 0]
            labels = np.asarray(mask)
            expected = predictor.predict(photos / row["image"])
        np.testing.assert_array_equal(labels, expected.mask)
        assert row["shares"] == pytest.approx(expected.shares, abs=1e-6)
        assert row["prevalent"] == expected.prevalent
        assert row["mask"] == f"{name}.png"
        with Image.open(tmp_path / "masks" / "overlays" / f"{name}.png") as overlay:
            assert overlay.size == labels.shape[::-1]


def test_one_picture_to_one_file(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    done = predict_files(predictor, photos / "two.jpg", out=tmp_path / "mask.png")
    assert done.masks == tmp_path / "mask.png"
    with Image.open(done.masks) as mask:
        assert mask.size == (16, 24)
    with pytest.raises(OutputError, match="one file for 4 masks"):
        predict_files(predictor, photos, out=tmp_path / "other.png")


def test_arrays_become_arrays(tmp_path: Path, rng: np.random.Generator, predictor: Predictor) -> None:
    images = rng.integers(0, 256, (5, 18, 22, 3), dtype=np.uint8)
    np.savez(tmp_path / "night.npz", images=images)
    for out in (tmp_path / "out", tmp_path / "named.npz"):
        done = predict_files(predictor, tmp_path / "night.npz", out=out)
        with np.load(done.masks) as arrays:
            masks, ids = arrays["masks"], arrays["ids"]
        expected = [predictor.predict(image).mask for image in images]
        np.testing.assert_array_equal(masks, expected)
        assert len(set(ids.tolist())) == 5
        assert len(rows(done.table)) == 5


def test_masks_never_go_into_the_folder_of_the_images(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    before = sorted(tmp_path.rglob("*"))
    for out in (photos, photos / "masks", tmp_path / "masks" / ".." / "snaps"):
        with pytest.raises(OutputError, match="inside the folder of the images"):
            predict_files(predictor, photos, out=out)
    with pytest.raises(OutputError, match="inside the folder of the images"):
        predict_files(predictor, photos / "two.jpg", out=photos)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_foreign_file_is_never_replaced(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    out = tmp_path / "masks"
    out.mkdir()
    (out / "two.png").write_bytes(b"drawn by hand")
    with pytest.raises(OutputError, match=r"two\.png"):
        predict_files(predictor, photos, out=out)
    assert (out / "two.png").read_bytes() == b"drawn by hand"
    assert [path.name for path in out.iterdir()] == ["two.png"]


def test_own_masks_are_replaced_but_corrected_ones_stay(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    out = tmp_path / "masks"
    predict_files(predictor, photos, out=out)
    predict_files(predictor, photos, out=out)
    assert len(rows(out / TABLE)) == 4
    with Image.open(out / "one.png") as mask:
        corrected = mask.copy()
    corrected.putpixel((0, 0), 2 if corrected.getpixel((0, 0)) != 2 else 1)
    corrected.save(out / "one.png")
    with pytest.raises(OutputError, match=r"one\.png"):
        predict_files(predictor, photos, out=out)


def test_a_table_keeps_the_rows_of_other_images(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    out = tmp_path / "masks"
    predict_files(predictor, photos / "one.png", out=out)
    predict_files(predictor, photos / "two.jpg", out=out)
    assert set(rows(out / TABLE)) == {"one", "two"}
    predict_files(predictor, photos, out=out)
    assert len((out / TABLE).read_text().splitlines()) == 4


def test_a_foreign_table_is_never_replaced(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    out = tmp_path / "masks"
    out.mkdir()
    (out / TABLE).write_text("my notes\n")
    with pytest.raises(OutputError, match="no table of segwright"):
        predict_files(predictor, photos, out=out)


def test_a_stopped_run_can_be_repeated(
    tmp_path: Path, photos: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segwright.prediction import files

    out, count = tmp_path / "masks", 0

    def stop_at_third(path: Path, mask: np.ndarray, palette: np.ndarray) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        write(path, mask, palette)

    write = files.write_mask
    monkeypatch.setattr(files, "write_mask", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        predict_files(predictor, photos, out=out)
    assert not (out / TABLE).exists()
    with (out / f".{TABLE}.part").open("a") as part:
        part.write('{"id": "cut sh')
    monkeypatch.undo()
    predict_files(predictor, photos, out=out)
    assert len(rows(out / TABLE)) == 4
    assert not (out / f".{TABLE}.part").exists()


def test_a_damaged_image_is_left_out_and_named(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    whole = (photos / "one.png").read_bytes()
    (photos / "one.png").write_bytes(whole[: len(whole) // 2])
    done = predict_files(predictor, photos, out=tmp_path / "masks")
    assert list(done.failed) == ["one"]
    assert done.images == 3
    assert "error" in rows(done.table)["one"]
    assert not (tmp_path / "masks" / "one.png").exists()


def test_nothing_to_predict_is_an_error(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        predict_files(predictor, tmp_path / "empty", out=tmp_path / "masks")
    (photos / "one.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no image could be predicted"):
        predict_files(predictor, photos / "one.png", out=tmp_path / "masks")


def test_two_images_of_one_name_are_refused(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    Image.new("RGB", (8, 8)).save(photos / "two.png")
    with pytest.raises((OutputError, DataError), match="two"):
        predict_files(predictor, photos, out=tmp_path / "masks")


def test_overlays_may_come_and_go(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    for overlays in (True, False, True):
        assert predict_files(predictor, photos, out=tmp_path / "masks", overlays=overlays).images == 4


def test_masks_beside_the_images_are_not_looked_at(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    for part in ("images", "masks"):
        (tmp_path / "half" / part).mkdir(parents=True)
    for name in ("a", "b"):
        Image.open(photos / "one.png").save(tmp_path / "half" / "images" / f"{name}.png")
    (tmp_path / "half" / "masks" / "a.png").write_bytes(b"damaged")
    assert predict_files(predictor, tmp_path / "half", out=tmp_path / "masks").images == 2


def test_overlays_of_large_images_are_small(
    tmp_path: Path, photos: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predict_files(predictor, photos, out=tmp_path / "plain")
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 500)
    monkeypatch.setattr("segwright.prediction.files.LARGEST_OVERLAY_PX", 15)
    done = predict_files(predictor, photos, out=tmp_path / "masks", overlays=True)
    for name, size in (("one", (15, 10)), ("gray", (14, 12))):
        with Image.open(done.masks / "overlays" / f"{name}.png") as overlay:
            assert overlay.size == size
        assert (done.masks / f"{name}.png").read_bytes() == (plain.masks / f"{name}.png").read_bytes()


def test_a_prediction_never_becomes_a_label(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    (tmp_path / "set").mkdir()
    photos.rename(tmp_path / "set" / "images")
    images = tmp_path / "set" / "images"
    for source, out in (
        (images, tmp_path / "set" / "masks"),
        (images / "one.png", tmp_path / "set" / "masks"),
        (images / "one.png", tmp_path / "set" / "masks" / "one.png"),
        (images / "one.png", images / "one_mask.png"),
        (images / "two.jpg", images / "two.png"),
    ):
        with pytest.raises(OutputError, match="take this prediction for the label of"):
            predict_files(predictor, source, out=out)
    assert not (tmp_path / "set" / "masks").exists()
    assert predict_files(predictor, images, out=tmp_path / "set" / "predicted").images == 4


def test_what_fails_at_once_leaves_nothing(tmp_path: Path, photos: Path, predictor: Predictor) -> None:
    for path in photos.rglob("*.*g"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no image could be predicted"):
        predict_files(predictor, photos, out=tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("name", [TABLE, f".{TABLE}.part"])
@pytest.mark.parametrize("content", ["my notes\n", '{"image": 3}\n', '{"id": "a", "written": 3}\n', None])
def test_a_table_that_is_not_ours(
    tmp_path: Path, photos: Path, predictor: Predictor, name: str, content: str | None
) -> None:
    (tmp_path / "out").mkdir()
    if content is None:
        (tmp_path / "out" / name).mkdir()
    else:
        (tmp_path / "out" / name).write_text(content)
    before = sorted((tmp_path / "out").iterdir())
    if name == TABLE or content in ("my notes\n", '{"image": 3}\n', None):
        with pytest.raises(OutputError, match="is no table of segwright"):
            predict_files(predictor, photos, out=tmp_path / "out")
        assert sorted((tmp_path / "out").iterdir()) == before
