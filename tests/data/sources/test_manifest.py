"""A CSV manifest names images, masks, sides and groups, and nothing outside its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.data.card import write_card
from segwright.data.sources import open_source
from segwright.errors import DataError

SQUARES = (np.indices((8, 6)).sum(axis=0) % 2).astype(np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three images with masks, one level below what is allowed to be read."""
    for name in ("flight1/a.png", "flight1/b.png", "flight2/a.png"):
        for place in (tmp_path / "set" / name, tmp_path / "set" / "labels" / name):
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(SQUARES).save(place)
    Image.fromarray(SQUARES).save(tmp_path / "outside.png")
    return tmp_path / "set"


def manifest(folder: Path, *lines: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder / name


ROWS = (
    ("image", "mask", "split", "group"),
    ("flight1/a.png", "labels/flight1/a.png", "train", "f1"),
    ("flight1/b.png", "labels/flight1/b.png", "Validation", "f2"),
    ("flight2/a.png", "", "test", ""),
)


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_column_is_read(folder, separator, encoding):
    source = open_source(manifest(folder, *(separator.join(row) for row in ROWS), encoding=encoding))
    assert source.format == "manifest"
    assert [(one.id, one.mask, one.split, one.group) for one in source.samples] == [
        ("flight1/a", "labels/flight1/a.png", "train", "f1"),
        ("flight1/b", "labels/flight1/b.png", "val", "f2"),
        ("flight2/a", None, "test", None),
    ]
    image, mask = source.read(source.samples[1])
    np.testing.assert_array_equal(image, SQUARES[None])
    np.testing.assert_array_equal(mask, SQUARES)
    assert folder / "list.csv" in source.fingerprint_files()


def test_columns_stand_in_any_order_and_case_and_may_be_missing(folder):
    source = open_source(
        manifest(folder, "weather,Mask, IMAGE ", "dry,labels/flight1/a.png,./flight1//a.png", "", ",,")
    )
    assert [(one.id, one.image, one.mask, one.split) for one in source.samples] == [
        ("flight1/a", "flight1/a.png", "labels/flight1/a.png", None)
    ]
    assert source.notes == ("columns that are not used: weather",)


def test_images_alone_are_unlabelled(folder):
    source = open_source(manifest(folder, "image", "flight1/a.png", '"flight1/b.png"', name="list.tsv"))
    assert not source.labelled
    assert len(source.samples) == 2


def test_class_names_come_from_beside_the_manifest(folder):
    (folder / "classes.txt").write_text("sky\nsoil\n")
    source = open_source(manifest(folder, *(",".join(row) for row in ROWS)))
    assert source.classes.names == ("sky", "soil")
    assert folder / "classes.txt" in source.fingerprint_files()


@pytest.mark.parametrize("path", ["../outside.png", "flight1/../../outside.png", "/etc/hostname", "link.png"])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_nothing_outside_its_folder_is_read(folder, path, column):
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    cells = {"image": "flight1/a.png", "mask": "labels/flight1/a.png"} | {column: path}
    with pytest.raises(DataError, match="leaves its folder"):
        open_source(manifest(folder, "image,mask", f"{cells['image']},{cells['mask']}"))


def test_a_way_up_and_down_within_the_folder_is_fine(folder):
    source = open_source(manifest(folder, "image,mask", "flight2/../flight1/a.png,labels/flight1/a.png"))
    assert source.samples[0].id == "flight1/a"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["picture,mask", "flight1/a.png,x"], r"no column 'image' \(its columns are picture, mask\)"),
        ([""], r"its columns are none"),
        (["image,mask"], "names no image"),
        (["image,mask", ",labels/flight1/a.png"], "line 2 names no image"),
        (["image", "flight1/a.png", "flight9/a.png"], "line 3 names image 'flight9/a.png', which is not there"),
        (["image,mask", "flight1/a.png,labels/z.png"], "line 2 names mask 'labels/z.png'"),
        (["image,split", "flight1/a.png,trian"], r"line 2 has split 'trian'. Did you mean 'train'"),
        (["image", "flight1/a.png", "flight1/a.png"], "share the name 'flight1/a'"),
        (["image,mask", "flight1/a.png,labels/flight1/a.png", "flight1/b.png,"], "1 image has no mask: flight1/b.png"),
    ],
)
def test_wrong_lines_are_named(folder, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        open_source(manifest(folder, *lines))
    assert "list.csv" in str(caught.value)


def test_a_manifest_that_is_no_text(folder):
    (folder / "list.csv").write_bytes(b"image\n\xff\xfe\x00")
    with pytest.raises(DataError, match="is no UTF-8 text"):
        open_source(folder / "list.csv")


def test_masks_can_be_left_unread(folder):
    (folder / "labels/flight1/a.png").write_bytes(b"no picture")
    path = manifest(folder, *(",".join(row) for row in ROWS))
    assert [one.mask for one in open_source(path, masks=False).samples] == [None] * 3


@pytest.mark.parametrize(
    "name", ["two\nlines.png", "next\x85line.png", "a,b.png", "=1+1.png", "naïve 雪.png", 'a "b".png']
)
def test_names_of_every_kind(folder, name):
    (folder / "flight1/a.png").rename(folder / name)
    quoted = name.replace('"', '""')
    source = open_source(
        manifest(folder, "image,mask", f'"{quoted}",labels/flight1/a.png', "flight1/b.png,labels/flight1/b.png")
    )
    assert [one.id for one in source.samples] == [name[:-4], "flight1/b"]
    write_card(folder / "card.yaml", source.as_card() | {"dropped": {name[:-4]: f"it is {name}"}})
    assert list(open_source(folder / "card.yaml").dropped.values()) == [f"it is {name}"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,mask,Image", "a,b,c"], "two columns 'image'"),
        (["image,mask", "flight1/a.png,labels/flight1/a.png,train"], "line 2 has more cells than there are columns"),
        (["image", '"flight1/a.png', 'x"', "flight9/a.png"], "line 3 names image"),
        (["image", "x" * 200_000], "is no CSV"),
        (["image,mask", "../outside.png,x"], r"list.csv: line 2: path '../outside.png' leaves its folder"),
    ],
)
def test_lines_that_would_lose_something(folder, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        open_source(manifest(folder, *lines))
    assert "list.csv" in str(caught.value)
