"""The Pascal VOC layout: lists of ids, palette masks, 255 for the border."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.data.sources import open_source
from segwright.data.sources.voc import VOC_NAMES, find_voc, voc_color
from segwright.errors import DataError
from segwright.files import write_mask
from segwright.recipe import make_recipe
from segwright.training.preparation import prepare

PALETTE = np.array([voc_color(label) for label in range(21)], dtype=np.uint8)


def labels(one: int) -> np.ndarray:
    """Background, one object, and a border of 255 around it."""
    mask = np.zeros((12, 10), dtype=np.uint8)
    mask[3:9, 3:9] = 255
    mask[4:8, 4:8] = one
    return mask


def devkit(root: Path, sides: dict[str, list[str]], *, unmasked: tuple[str, ...] = ()) -> Path:
    """Write a devkit whose image number i shows class i."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for place, name in enumerate(dict.fromkeys(name for names in sides.values() for name in names), start=1):
        Image.fromarray(np.full((12, 10, 3), 60 + 10 * place, np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        if name not in unmasked:
            write_mask(root / "SegmentationClass" / f"{name}.png", labels(place), PALETTE)
    for side, names in sides.items():
        (root / "ImageSets/Segmentation" / f"{side}.txt").write_text("\n".join(names) + "\n")
    return root


SIDES = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"], "test": ["2007_000001"]}


@pytest.mark.parametrize("above", ["", "VOC2012", "VOCdevkit/VOC2007"])
def test_a_devkit_is_found_and_read(tmp_path, above):
    root = devkit(tmp_path / above if above else tmp_path / "x", SIDES, unmasked=("2007_000001",))
    source = open_source(tmp_path if above else root)
    assert source.format == "voc"
    assert source.root == root
    assert [(one.id, one.split) for one in source.samples] == [
        ("2007_000032", "train"), ("2007_000039", "train"), ("2007_000033", "val"), ("2007_000001", "test"),
    ]  # fmt: skip
    assert source.classes.names == VOC_NAMES
    np.testing.assert_array_equal(source.classes.palette(), PALETTE)
    for place, sample in enumerate(source.samples[:3], start=1):
        image, mask = source.read(sample)
        assert image.shape == (3, 12, 10)
        np.testing.assert_array_equal(mask, labels(place))
    assert source.samples[3].mask is None
    assert {path.name for path in source.fingerprint_files()} >= {"train.txt", "val.txt", "2007_000032.png"}


def test_the_palette_is_that_of_the_development_kit():
    # http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html, function VOClabelcolormap
    assert [voc_color(label) for label in (0, 1, 2, 3, 8, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192),
    ]  # fmt: skip
    assert len({voc_color(label) for label in range(256)}) == 256


def test_trainval_serves_where_sides_are_missing(tmp_path):
    source = open_source(devkit(tmp_path, {"trainval": ["b", "a"]}))
    assert [(one.id, one.split) for one in source.samples] == [("b", None), ("a", None)]


def test_without_lists_all_masks_are_taken(tmp_path):
    devkit(tmp_path, {"trainval": ["b", "a"]})
    (tmp_path / "ImageSets/Segmentation/trainval.txt").unlink()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "JPEGImages/extra.jpg")
    assert [one.id for one in open_source(tmp_path).samples] == ["a", "b"]


def test_a_label_map_goes_before_the_twenty_one(tmp_path):
    devkit(tmp_path, {"train": ["a", "b"]})
    (tmp_path / "labelmap.txt").write_text("# name:color\nsky:1,2,3::\nsoil:4,5,6::\nrock:7,8,9::\n")
    source = open_source(tmp_path)
    assert source.classes.names == ("sky", "soil", "rock")
    assert source.classes.colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    np.testing.assert_array_equal(source.read_mask(source.samples[1]), labels(2))


def test_faults_are_named(tmp_path):
    devkit(tmp_path / "two/VOC2007", SIDES)
    devkit(tmp_path / "two/VOC2012", SIDES)
    with pytest.raises(DataError, match="several VOC sets: VOC2007, VOC2012"):
        open_source(tmp_path / "two")
    lists = devkit(tmp_path / "one", SIDES) / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("2007_000032\n")
    with pytest.raises(DataError, match=r"val.txt: names '2007_000032', which is in train.txt too"):
        open_source(tmp_path / "one")
    (lists / "val.txt").write_text("2099_999999\n")
    with pytest.raises(DataError, match=r"has no image '2099_999999'"):
        open_source(tmp_path / "one")
    with pytest.raises(DataError, match=r"no mask: JPEGImages/2007_000033.jpg"):
        open_source(devkit(tmp_path / "bare", SIDES, unmasked=("2007_000033",)))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "bare/JPEGImages/2007_000033.png")
    with pytest.raises(DataError, match=r"'2007_000033.jpg' and '2007_000033.png' share a name"):
        open_source(tmp_path / "bare")


def test_a_folder_that_is_no_devkit(tmp_path):
    assert find_voc(tmp_path) is None
    with pytest.raises(DataError, match="holds no JPEGImages/ and SegmentationClass/"):
        open_source(tmp_path, format="voc")
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "SegmentationClass").mkdir()
    with pytest.raises(DataError, match="holds no masks"):
        open_source(tmp_path)


def test_the_kit_of_2007_as_it_is_unpacked(tmp_path):
    """Photos of other tasks lie among those that are labelled; masks of objects and boxes lie beside."""
    sides = {"train": ["000032", "000039"], "val": ["000063"], "test": ["000068", "000175"]}
    root = devkit(tmp_path / "VOCdevkit/VOC2007", sides)
    lists = root / "ImageSets/Segmentation"
    (lists / "trainval.txt").write_text("000032\n000039\n000063\n")
    for folder, name in (("ImageSets/Main", "aeroplane_train.txt"), ("Annotations", "000005.xml")):
        (root / folder).mkdir()
        (root / folder / name).write_text("")
    shutil.copytree(root / "SegmentationClass", root / "SegmentationObject")
    shutil.copy(root / "JPEGImages/000032.jpg", root / "JPEGImages/000005.jpg")
    for path in (root, root.parent):
        recipe = make_recipe({"data": {"path": str(path)}})
        images = prepare(recipe, progress=False)
        assert images.split == {one: side for side, ids in sides.items() for one in ids}
        assert images.classes.names == VOC_NAMES
        np.testing.assert_array_equal(images.pack.mask(images.pack.ids.index("000063")), labels(3))


def test_ids_with_blanks(tmp_path):
    devkit(tmp_path, {"train": ["a b", "c"], "val": ["d"]})
    assert {one.id: one.split for one in open_source(tmp_path).samples} == {"a b": "train", "c": "train", "d": "val"}
