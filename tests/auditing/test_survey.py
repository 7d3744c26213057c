"""One pass keeps a record of every image, whatever is wrong with some of them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.auditing.survey import Fault, Survey, take_survey
from segwright.data.pack import open_pack
from segwright.data.sources import open_source
from segwright.data.synthetic import TERRAIN_NAMES, write_terrain
from segwright.errors import DataError, MaskError

SIZE = (32, 48)


@pytest.fixture(scope="module")
def terrain(tmp_path_factory) -> Path:
    return write_terrain(tmp_path_factory.mktemp("clean") / "set", images=20, size=SIZE)


@pytest.fixture
def copy(terrain, tmp_path) -> Path:
    return Path(shutil.copytree(terrain, tmp_path / "set"))


def surveyed(root: Path) -> Survey:
    return take_survey(root, progress=False)


def faults(survey: Survey) -> dict[str, str]:
    return {look.id: look.fault.kind for look in survey.looks if look.fault is not None}


def image(root: Path, place: int) -> Path:
    return next(root.glob(f"*/images/terrain_{place:04d}.*"))


def mask(root: Path, place: int) -> Path:
    return next(root.glob(f"*/masks/terrain_{place:04d}.*"))


def name(root: Path, place: int) -> str:
    return f"{image(root, place).parent.parent.name}/terrain_{place:04d}"


def test_a_clean_source_has_no_faults_and_the_digests_of_its_pack(terrain):
    survey = surveyed(terrain)
    source = open_source(terrain)
    assert faults(survey) == {}
    assert survey.problems == ()
    assert survey.source == source
    assert survey.ids == tuple(sample.id for sample in source.samples)
    assert survey.usable == tuple(range(20))
    pack = open_pack(source, progress=False)
    for place, look in enumerate(survey.looks):
        assert (look.image_digest, look.mask_digest) == (pack.image_digest[place], pack.mask_digest[place])
        assert (look.size_px, look.channels, look.depth) == (SIZE, 3, "uint8")
        assert look.split == source.samples[place].split
        assert look.tones is not None
        assert look.prints is not None
        assert look.labels is not None
        np.testing.assert_array_equal(
            look.labels.pixels, np.bincount(source.read_mask(source.samples[place]).ravel(), minlength=5)
        )
        np.testing.assert_array_equal(survey.read(place)[0], source.read_image(source.samples[place]))


def test_every_fault_is_kept_with_its_image(copy):
    cut, empty, small, turned = (image(copy, place) for place in (0, 1, 2, 3))
    cut.write_bytes(cut.read_bytes()[:400])
    empty.write_bytes(b"")
    with Image.open(small) as picture:
        shrunk = picture.resize((24, 16))
    shrunk.save(small)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(turned) as picture:
        picture.convert("RGB").save(turned.with_suffix(".jpg"), exif=exif)
    turned.unlink()
    mask(copy, 4).unlink()
    mask(copy, 5).write_bytes(mask(copy, 5).read_bytes()[:100])
    Image.fromarray(np.full(SIZE, 99, np.uint8)).save(mask(copy, 6))
    slip = np.array(Image.open(mask(copy, 7)))
    slip[:5, :5] = 77
    Image.fromarray(slip).save(mask(copy, 7))
    lying = np.rot90(np.array(Image.open(mask(copy, 8)))).copy()
    Image.fromarray(lying).save(mask(copy, 8))
    survey = surveyed(copy)
    kinds = [
        "broken_image",
        "broken_image",
        "size_mismatch",
        "turned_photo",
        "missing_mask",
        "broken_mask",
        "unknown_label",
    ]
    expected = {name(copy, place): kind for place, kind in enumerate([*kinds, "unknown_label", "size_mismatch"])}
    if expected[name(copy, 4)] and survey.looks[survey.ids.index(name(copy, 4))].split == "test":
        del expected[name(copy, 4)]
    assert faults(survey) == expected
    assert len(survey.usable) == 20 - 9
    look = {one.id: one for one in survey.looks}
    assert look[name(copy, 0)].size_px is None
    assert look[name(copy, 5)].image_digest
    assert look[name(copy, 6)].labels is None
    assert look[name(copy, 7)].fault == Fault(
        "unknown_label", "value 77 in 25 pixels; classes have 0, 1, 2, 3, 4", (77,)
    )
    assert "turned by a quarter to the right" in str(look[name(copy, 3)].fault)
    assert "as if one of them were turned" in str(look[name(copy, 8)].fault)
    with pytest.raises(DataError, match="cannot be decoded"):
        survey.read(survey.ids.index(name(copy, 0)))
    with pytest.raises(MaskError, match="mask has"):
        survey.read(survey.ids.index(name(copy, 2)))


def test_soft_masks_are_measured_and_read_by_the_nearest_class(tmp_path):
    root = write_terrain(tmp_path / "set", images=12, size=SIZE, layout="pairs")
    (root / "classes.txt").unlink()
    for place in range(12):
        black = (np.array(Image.open(mask_of(root, place))) > 1).astype(np.uint8) * 255
        picture = Image.fromarray(black)
        if place == 4:
            picture = picture.resize((29, 19), Image.Resampling.BILINEAR).resize(SIZE[::-1], Image.Resampling.BILINEAR)
        picture.save(mask_of(root, place))
    survey = surveyed(root)
    assert faults(survey) == {"terrain_0004": "soft_mask"}
    look = survey.looks[4]
    assert look.labels is not None
    assert look.labels.pixels.sum() == SIZE[0] * SIZE[1]
    labels = survey.read(4)[1]
    assert labels is not None
    np.testing.assert_array_equal(labels, np.array(Image.open(mask_of(root, 4))) > 127)


def mask_of(root: Path, place: int) -> Path:
    return root / f"masks/terrain_{place:04d}.png"


def test_what_is_listed_and_not_there_has_a_look_too(tmp_path):
    root = write_terrain(tmp_path / "set", images=6, size=SIZE, layout="pairs")
    with (root / "list.csv").open("w", newline="") as stream:
        rows = [["image", "mask"], *([f"images/terrain_{i:04d}.png", f"masks/terrain_{i:04d}.png"] for i in range(7))]
        csv.writer(stream).writerows(rows)
    survey = surveyed(root / "list.csv")
    assert faults(survey) == {"images/terrain_0006": "broken_line"}
    assert len(survey.looks) == 7
    assert survey.usable == tuple(range(6))
    with pytest.raises(DataError, match="is not there"):
        survey.read(6)


def test_lonely_masks_are_a_problem_of_no_image(copy):
    image(copy, 3).unlink()
    survey = surveyed(copy)
    assert faults(survey) == {}
    (problem,) = survey.problems
    assert (problem.kind, problem.summary) == ("missing_image", "1 mask has no image.")
    assert problem.ids[0].endswith("masks/terrain_0003.png")


def test_a_part_of_a_survey(terrain):
    survey = surveyed(terrain)
    train = survey.side("train")
    assert len(train.looks) == 14
    assert {look.split for look in train.looks} == {"train"}
    part = survey.subset([5, 2])
    assert part.ids == (survey.ids[5], survey.ids[2])
    np.testing.assert_array_equal(part.read(0)[0], survey.read(5)[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_of_any_depth_and_a_single_pixel(tmp_path, dtype):
    images = np.random.default_rng(0).random((4, 1, 1)).astype(dtype)
    images[0] = 7
    np.savez(tmp_path / "set.npz", images=images, masks=np.zeros((4, 1, 1), np.uint8))
    survey = surveyed(tmp_path / "set.npz")
    assert faults(survey) == {}
    assert {look.depth for look in survey.looks} == {np.dtype(dtype).name}
    assert survey.looks[2].image_file == "set.npz[images][2]"


def test_fractions_that_are_no_numbers(tmp_path):
    images = np.ones((3, 40, 40), dtype=np.float32)
    images[1, 3, 3] = np.nan
    np.savez(tmp_path / "set.npz", images=images, masks=np.zeros((3, 40, 40), np.uint8))
    assert faults(surveyed(tmp_path / "set.npz")) == {"00001": "broken_image"}


def test_class_names_and_unlabelled_pictures(terrain, tmp_path):
    assert surveyed(terrain).classes.names == TERRAIN_NAMES
    shutil.copytree(terrain / "train/images", tmp_path / "bare")
    survey = surveyed(tmp_path / "bare")
    assert (faults(survey), survey.usable) == ({}, ())
    assert survey.looks[0].prints is not None


def test_nothing_at_all(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        surveyed(tmp_path)
