"""Folders are understood in the layouts people have, and what could be read in two ways is named, never guessed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.data.sources import open_source
from segwright.data.sources.folder import takes_for_mask
from segwright.errors import DataError, MaskError

SQUARES = (np.indices((8, 6)).sum(axis=0) % 2).astype(np.uint8)


def lay(root: Path, *names: str) -> Path:
    """Write the same picture of 0 and 1 under each name: good as an image and as a mask."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(SQUARES).save(path)
    return root


def found(root: Path) -> dict[str, tuple[str, str | None, str | None]]:
    return {sample.id: (sample.image, sample.mask, sample.split) for sample in open_source(root).samples}


@pytest.mark.parametrize(
    "expected",
    [
        {"a": ("images/a.jpg", "masks/a.png", None), "b": ("images/b.png", "masks/b.png", None)},
        {"x/a": ("images/x/a.png", "masks/x/a.png", None), "y/a": ("images/y/a.png", "masks/y/a.png", None)},
        {
            "train/a": ("train/images/a.jpg", "train/masks/a.png", "train"),
            "val/a": ("val/images/a.jpg", "val/masks/a.png", "val"),
            "test/c": ("test/images/c.jpg", None, "test"),
        },
        {
            "train/a": ("images/train/a.jpg", "masks/train/a.png", "train"),
            "val/b": ("images/val/b.jpg", "masks/val/b.png", "val"),
            "test/c": ("images/test/c.jpg", None, "test"),
        },
        {
            "train/a": ("train/a.png", "trainannot/a.png", "train"),
            "val/b": ("val/b.png", "valannot/b.png", "val"),
            "test/c": ("test/c.png", "testannot/c.png", "test"),
        },
        {"a": ("a.jpg", "a_mask.png", None), "b": ("b.jpg", "b_mask.png", None)},
        {"a_image": ("a_image.png", "a_mask.png", None)},
        {"a": ("a.jpg", "masks/a.png", None)},
        {"train/a": ("train/a.jpg", "train/a_gt.png", "train"), "val/b": ("val/b.jpg", "val/masks/b.png", "val")},
        {"a": ("images/a.png", "masks/a.png", None), "test/c": ("test/c.jpg", None, "test")},
        {
            "a": ("images/a.png", "masks/a.png", "train"),
            "val/b": ("val/images/b.png", "val/masks/b.png", "val"),
            "test/c": ("test/images/c.png", "test/masks/c.png", "test"),
        },
        {"u_leftImg8bit": ("leftImg8bit/u_leftImg8bit.png", "gtFine/u_gtFine_labelIds.png", None)},
        {"image_0": ("image_0.jpg", "label_0.png", None), "image_1": ("image_1.jpg", "label_1.png", None)},
        {"seg_0": ("images/seg_0.png", "masks/seg_0_gt.png", None), "0": ("images/0.png", "masks/mask_0.png", None)},
        {"000": ("original_images/000.png", "label_images_semantic/000.png", None)},
        {
            "train_images/a": ("train_images/a.jpg", "train_masks/a_lab.png", "train"),
            "test_images/c": ("test_images/c.jpg", None, "test"),
        },
    ],
)
def test_layouts(tmp_path, expected):
    lay(tmp_path, *(name for image, mask, _ in expected.values() for name in (image, mask) if name))
    assert found(tmp_path) == expected


@pytest.mark.parametrize("images", ["image", "Imgs", "IMG", "photos", "pictures", "rgb", "inputs", "frames", "x"])
@pytest.mark.parametrize("masks", ["mask", "Labels", "annotations", "annot", "GT", "ground_truth", "targets", "y"])
def test_synonyms_of_images_and_masks(tmp_path, images, masks):
    lay(tmp_path, f"{images}/a.png", f"{masks}/a.png")
    assert found(tmp_path) == {"a": (f"{images}/a.png", f"{masks}/a.png", None)}


@pytest.mark.parametrize(
    ("name", "side"),
    [("Training", "train"), ("valid", "val"), ("validation", "val"), ("dev", "val"), ("testing", "test")],
)
def test_synonyms_of_sides(tmp_path, name, side):
    lay(tmp_path, f"{name}/images/a.png", f"{name}/masks/a.png")
    assert found(tmp_path) == {f"{name}/a": (f"{name}/images/a.png", f"{name}/masks/a.png", side)}


@pytest.mark.parametrize(
    "ending",
    ["_mask", "_masks", "_gt", "_label", "_labels", "_lab", "_L", "-mask", ".mask", "_seg", "_segmentation",
     "_groundtruth", "_gtFine_labelIds", "_gtFine_labelTrainIds"],
)  # fmt: skip
def test_names_match_without_the_usual_endings(tmp_path, ending):
    lay(tmp_path, "images/a.jpg", "images/b.jpg", f"masks/a{ending}.png", f"masks/b{ending}.png")
    assert [one.mask for one in open_source(tmp_path).samples] == [f"masks/a{ending}.png", f"masks/b{ending}.png"]


@pytest.mark.parametrize("start", ["mask_", "label_", "Labels-", "gt_", "seg_", "lab."])
def test_names_match_without_the_usual_beginnings(tmp_path, start):
    lay(tmp_path, "images/x/img_000.jpg", "images/001.jpg", f"masks/x/{start}000.png", f"masks/{start}001.png")
    pairs = {one.image: one.mask for one in open_source(tmp_path).samples}
    assert pairs == {
        "images/001.jpg": f"masks/{start}001.png", "images/x/img_000.jpg": f"masks/x/{start}000.png",
    }  # fmt: skip
    assert all(takes_for_mask(tmp_path / image, tmp_path / str(mask)) for image, mask in pairs.items())
    assert not takes_for_mask(tmp_path / "images/001.jpg", tmp_path / f"masks/{start}0010.png")


@pytest.mark.parametrize("told", ["class_dict.csv", "class_dict_seg.csv", "data.yaml"])
def test_photos_whose_labels_are_called_otherwise_and_coded_in_colours(tmp_path, told, rng):
    """As drone photos come: 000.jpg and label_000.png, with a table of colours beside them or in a card."""
    colors = [(0, 0, 0), (128, 64, 128), (130, 76, 0), (0, 102, 0), (112, 103, 87)]
    names = ["clutter", "paved", "dirt", "grass", "gravel"]
    root = tmp_path / "drone"
    truth = rng.integers(0, 4, (3, 12, 16)).astype(np.uint8)
    for number, mask in enumerate(truth):
        lay(root, f"original_images/{number:03d}.jpg", f"label_images_semantic/label_{number:03d}.png")
        Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(root / f"original_images/{number:03d}.jpg")
        label = root / f"label_images_semantic/label_{number:03d}.png"
        Image.fromarray(np.array(colors, np.uint8)[mask]).save(label)
    lines = [f"{name}, {r}, {g}, {b}" for name, (r, g, b) in zip(names, colors, strict=True)]
    if told == "data.yaml":
        card = {"source": "drone", "classes": names, "colors": colors}
        (tmp_path / told).write_text(json.dumps(card))
    else:
        (root / told).write_text("\n".join(["name, r, g, b", *lines]) + "\n")
    source = open_source(tmp_path / told if told == "data.yaml" else root)
    assert (source.classes.names, source.classes.colors) == (tuple(names), tuple(colors))
    for sample, mask in zip(source.samples, truth, strict=True):
        np.testing.assert_array_equal(source.read_mask(sample), mask)


def test_an_image_whose_own_name_ends_like_a_mask_keeps_its_mask(tmp_path):
    lay(tmp_path, "images/a.png", "images/a_L.png", "masks/a.png", "masks/a_L.png")
    assert {one.id: one.mask for one in open_source(tmp_path).samples} == {"a": "masks/a.png", "a_L": "masks/a_L.png"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["images/a.png", "img/a.png", "masks/a.png"], "images and img, which mean the same"),
        (["images/a.png", "labels/a.png", "masks/a.png"], "labels and masks, which mean the same"),
        (["images/a.png", "masks/a.png", "masks/a_gt.png"], "'images/a.png' has two masks, 'masks/a.png' and"),
        (["images/a.png", "images/a.jpg", "masks/a.png"], "'images/a.jpg' and 'images/a.png' share the name 'a'"),
        (["images/a.png", "images/b.png", "masks/a.png"], "1 image has no mask: images/b.png"),
        ([f"images/{i}.png" for i in range(6)] + ["masks/0.png"], "5 images have no mask: images/1.png.* and 2 more"),
        (["train/images/a.png", "train/masks/a.png", "val/images/b.png"], "no mask: val/images/b.png"),
        (["set1/images/a.png", "set1/masks/a.png"], "holds masks in 'set1/masks'"),
        (["train/a.png", "trainannot/a.png", "train_masks/a.png"], "train_masks and trainannot"),
        ([], "holds no pictures"),
    ],
)
def test_what_is_ambiguous_or_missing_is_named(tmp_path, names, message):
    lay(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["images/a.png", "masks/a.png", "masks/z.png"], "1 mask without an image, not used: masks/z.png"),
        (["images/a.png"], "images has no folder of masks beside it"),
        (["left.png", "train/images/a.png", "train/masks/a.png"], "1 picture beside train/ not used"),
    ],
)
def test_what_is_left_aside_is_noted(tmp_path, names, note):
    assert any(note in one for one in open_source(lay(tmp_path, *names)).notes)


def test_a_bare_folder_is_unlabelled(tmp_path):
    lay(tmp_path, "a.jpg", "deep/b.png", ".hidden.png", ".thumbs/c.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    source = open_source(tmp_path)
    assert [(one.id, one.mask, one.split) for one in source.samples] == [("a", None, None), ("deep/b", None, None)]
    assert not source.labelled
    image, mask = source.read(source.samples[1])
    assert mask is None
    np.testing.assert_array_equal(image, SQUARES[None])


def test_one_picture_is_a_source(tmp_path):
    source = open_source(lay(tmp_path, "a.png") / "a.png")
    assert [(one.id, one.mask) for one in source.samples] == [("a", None)]
    np.testing.assert_array_equal(source.read_image(source.samples[0]), SQUARES[None])


def test_image_and_mask_are_read(tmp_path):
    source = open_source(lay(tmp_path, "images/a.png", "masks/a.png"))
    image, mask = source.read(source.samples[0])
    assert image.shape == (1, 8, 6)
    np.testing.assert_array_equal(mask, SQUARES)
    Image.fromarray(SQUARES[:5]).save(tmp_path / "masks/a.png")
    with pytest.raises(MaskError, match=r"masks/a.png: mask has 6 x 5 pixels, its image 6 x 8"):
        source.read(source.samples[0])


def test_a_path_that_is_no_source(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is no source \('.txt'\)"):
        open_source(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "sky\n\nsoil\n"),
        ("labels.txt", "0: sky\n1: soil\n"),
        ("class_names.txt", "0 sky\n1 soil"),
        ("classes.json", '["sky", "soil"]'),
        ("classes.json", '[{"name": "sky", "value": 0}, {"name": "soil", "value": 1}]'),
        ("classes.json", '{"sky": 0, "soil": 1}'),
        ("classes.json", '{"0": "sky", "1": "soil"}'),
        ("class_dict.csv", "name,r,g,b\nsky,1,2,3\nsoil,4,5,6\n"),
        ("label_colors.txt", "1 2 3\t\tsky\n4 5 6\t\tsoil\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:1,2,3::\nsoil:4,5,6::\n"),
    ],
)
def test_class_names_come_from_a_file_beside_the_images(tmp_path, file, text):
    lay(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / file).write_text(text)
    source = open_source(tmp_path)
    assert source.classes.names == source.own_names == ("sky", "soil")
    if "1" in text and "4" in text:
        assert source.classes.colors == ((1, 2, 3), (4, 5, 6))
    assert tmp_path / file in source.fingerprint_files()
    assert open_source(tmp_path, names=("s", "t")).classes.names == ("s", "t")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.txt", "\n", "names no class"),
        ("classes.txt", "a\nb\nc\nd\n", None),
        ("classes.json", "{", "is no JSON"),
        ("classes.json", "3", "is no list of classes"),
        ("classes.json", '[{"value": 1}]', "without a name"),
        ("classes.json", '[{"name": "a", "value": 0}, {"name": "b"}]', "only some classes"),
        ("classes.json", '[{"name": "a", "color": [0, 0, 256]}]', "is no colour"),
        ("classes.json", '{"first": "a"}', "'first' is no mask value"),
        ("label_colors.txt", "1 2 sky\n", "is no colour"),
    ],
)
def test_wrong_class_files_are_named(tmp_path, file, text, message):
    lay(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / file).write_text(text)
    if message is None:  # more names than values are seen: classes without pixels
        assert open_source(tmp_path).classes.num_classes == 4
        return
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path)
    assert caught.value.file == str(tmp_path / file)


def test_the_classes_of_a_model_must_be_those_of_the_source(tmp_path):
    lay(tmp_path, "images/a.png", "masks/a.png")
    open_source(tmp_path).require_classes(("anything", "goes"))  # it brings no names
    (tmp_path / "classes.json").write_text(json.dumps(["sky", "soil"]))
    source = open_source(tmp_path)
    source.require_classes(("sky", "soil"))
    with pytest.raises(DataError, match=r"its classes are sky, soil, the model's soil, sky"):
        source.require_classes(("soil", "sky"))


def test_masks_can_be_left_unread(tmp_path):
    lay(tmp_path, "images/a.png", "images/b.png", "masks/a.png")
    (tmp_path / "masks/a.png").write_bytes(b"no picture")
    (tmp_path / "classes.txt").write_text("sky\nsoil\n")
    with pytest.raises(DataError, match="no mask"):
        open_source(tmp_path)
    source = open_source(tmp_path, masks=False)
    assert [(one.id, one.mask) for one in source.samples] == [("a", None), ("b", None)]
    source.require_classes(("other", "names"))  # a stranger's class file beside images to predict
    assert all("masks" not in path.parts for path in source.fingerprint_files())


def test_what_is_not_used_is_noted(tmp_path):
    lay(tmp_path, "images/a.png", "masks/a.png", "overlays/a.png", "overlays/b.png", "cover.png", "runs/log.png")
    assert set(open_source(tmp_path).notes) == {
        "1 picture beside images/, masks/ not used", "2 pictures in overlays/ not used", "1 picture in runs/ not used",
    }  # fmt: skip


def test_images_without_masks_beside_a_labelled_test_side(tmp_path):
    lay(tmp_path, "images/a.png", "images/b.png", "test/images/c.png", "test/masks/c.png")
    with pytest.raises(DataError, match=r"2 images have no mask: images/a.png, images/b.png"):
        open_source(tmp_path)
    assert {one.id for one in open_source(tmp_path, masks=False).samples} == {"a", "b", "test/c"}
    lay(tmp_path, "train/images/d.png", "train/masks/d.png")
    source = open_source(tmp_path)
    assert {one.id for one in source.samples} == {"train/d", "test/c"}
    assert source.notes == ("2 pictures in images/ not used",)


def test_two_folders_of_one_side_are_refused(tmp_path):
    lay(tmp_path, "Train/images/a.png", "Train/masks/a.png", "train/images/b.png", "train/masks/b.png")
    with pytest.raises(DataError, match="holds Train and train, which mean the same"):
        open_source(tmp_path)


def test_groups_beside_pictures_are_no_images(tmp_path):
    lay(tmp_path, "a.png", "b.png")
    np.save(tmp_path / "groups.npy", np.arange(2))
    np.savez(tmp_path / "more.npz", groups=np.arange(2))
    assert {one.id for one in open_source(tmp_path).samples} == {"a", "b"}
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 6), np.uint8))
    assert open_source(tmp_path).format == "arrays"


def test_links_are_followed_and_never_round(tmp_path):
    lay(tmp_path, "far/images/deep/a.png", "far/masks/deep/a.png", "near/masks/b.png", "b.png")
    (tmp_path / "near/images").symlink_to(tmp_path / "far/images")
    (tmp_path / "near/masks/deep").symlink_to(tmp_path / "far/masks/deep")
    (tmp_path / "far/images/b.png").symlink_to(tmp_path / "b.png")
    assert set(found(tmp_path / "near")) == {"b", "deep/a"}
    (tmp_path / "far/images/deep/up").symlink_to(tmp_path / "far/images")
    with pytest.raises(DataError, match=r"deep/up: is a link that leads back to a folder above it"):
        open_source(tmp_path / "near")


def test_what_is_named_like_a_picture_and_is_none(tmp_path):
    lay(tmp_path, "images/a.png", "images/film.tif/b.png", "masks/a.png", "masks/film.tif/b.png")
    assert set(found(tmp_path)) == {"a", "film.tif/b"}  # a folder of pictures may be called anything
    (tmp_path / "images/c.png").mkdir()
    with pytest.raises(DataError, match=r"images/c.png: is a folder, named like a picture"):
        open_source(tmp_path)
    (tmp_path / "images/c.png").rmdir()
    os.mkfifo(tmp_path / "images/c.png")
    with pytest.raises(DataError, match=r"images/c.png: is no file, but a pipe"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("image", "mask", "taken"),
    [
        ("images/a.jpg", "masks/a.png", True),
        ("images/a.jpg", "masks/a_mask.png", True),
        ("images/a.jpg", "predicted/a.png", False),
        ("images/day/a.jpg", "masks/day/a.png", True),
        ("images/day/a.jpg", "masks/a.png", False),
        ("photos/test/images/a.jpg", "masks/a.png", False),
        ("new_photos/a.jpg", "masks/a.png", False),
        ("train/a.jpg", "trainannot/a.png", True),
        ("train/images/a.jpg", "train/masks/a.png", True),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", True),
        ("a.jpg", "a_mask.png", True),
        ("a_image.jpg", "a_mask.png", True),
        ("a.jpg", "a.png", True),
        ("a.jpg", "masks/a.png", True),
        ("a.jpg", "mask.png", False),
        ("images/a.jpg", "a.png", False),
    ],
)
def test_what_would_be_taken_for_a_mask(tmp_path, image, mask, taken):
    assert takes_for_mask(tmp_path / image, tmp_path / mask) is taken
    if taken and mask != "a.png":  # and so does the reader
        assert mask in [one.mask for one in open_source(lay(tmp_path, image, mask), names=("a", "b")).samples]
