"""Public data sets: what arrives is put there whole or not at all, and the rest says where it is to be had."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from segwright.cli import main
from segwright.data import fetching
from segwright.data.fetching import fetch
from segwright.data.public_sets import PUBLIC_SETS
from segwright.data.sources import open_source
from segwright.errors import DataError, OutputError


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGWRIGHT_OFFLINE")


def devkit(root: str, *, year: str, image_set: str, download: bool) -> None:
    """As `torchvision.datasets.VOCSegmentation` downloads: its archive stays beside what it held."""
    assert download
    folder = Path(root) / "VOCdevkit" / f"VOC{year}"
    (Path(root) / f"VOC{image_set}.tar").write_text("archive")
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for side in ("train", "val") if image_set == "trainval" else ("test",):
        Image.new("RGB", (8, 6)).save(folder / "JPEGImages" / f"{side}.jpg")
        Image.new("L", (8, 6), 1).save(folder / "SegmentationClass" / f"{side}.png")
        (folder / "ImageSets/Segmentation" / f"{side}.txt").write_text(f"{side}\n")


def pets(root: str, *, target_types: str, download: bool) -> None:
    """As `torchvision.datasets.OxfordIIITPet` downloads."""
    assert (target_types, download) == ("segmentation", True)
    folder = Path(root) / "oxford-iiit-pet"
    for name in ("images", "annotations/trimaps"):
        (folder / name).mkdir(parents=True)
    for name, file in (("Abyssinian_100", "trainval"), ("Abyssinian_201", "test"), ("pug_3", "trainval")):
        Image.new("RGB", (9, 3)).save(folder / "images" / f"{name}.jpg")
        Image.fromarray(np.array([[1, 2, 3]] * 3, np.uint8).repeat(3, 1)).save(
            folder / "annotations/trimaps" / f"{name}.png"
        )
        with (folder / "annotations" / f"{file}.txt").open("a") as lines:
            lines.write(f"{name} 1 1 1\n")
    (folder / "annotations/trimaps/._pug_3.png").write_bytes(b"what a Mac leaves")
    (folder / "images.tar.gz").write_text("archive")


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["segwright", "data", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_devkit_is_put_there_whole_and_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching.datasets, "VOCSegmentation", devkit)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "get", "voc2007") == 0
    assert "Train: segwright train data/VOCdevkit/VOC2007\n" in capsys.readouterr().out
    assert [path.name for path in Path("data").iterdir()] == ["VOCdevkit"]
    assert {one.id: one.split for one in open_source(Path("data")).samples} == {
        "train": "train", "val": "val", "test": "test",
    }  # fmt: skip
    fetch("voc2012", Path("data"))
    assert {path.name for path in Path("data/VOCdevkit").iterdir()} == {"VOC2007", "VOC2012"}
    monkeypatch.setattr(fetching.datasets, "VOCSegmentation", None)
    assert fetch("voc2007", Path("data")) == Path("data/VOCdevkit/VOC2007")


def test_pets_get_a_card_that_reads_their_trimaps(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching.datasets, "OxfordIIITPet", pets)
    card = fetch("oxford-pets", tmp_path)
    assert card == tmp_path / "oxford-iiit-pet" / "data.yaml"
    assert not list(card.parent.glob("*.gz"))
    source = open_source(card)
    assert source.classes.names == ("pet", "background", "border")
    assert {one.id.split("/")[-1]: one.split for one in source.samples} == {
        "Abyssinian_100": None, "pug_3": None, "Abyssinian_201": "test",
    }  # fmt: skip
    np.testing.assert_array_equal(source.read_mask(source.samples[0])[0], [0, 0, 0, 1, 1, 1, 2, 2, 2])
    card.unlink()
    with pytest.raises(OutputError, match="oxford-iiit-pet: is in the way"):
        fetch("oxford-pets", tmp_path)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (
            URLError(OSError("Name or service not known")),
            DataError,
            r"VOC2007: 'voc2007' cannot be downloaded \(Name or",
        ),
        (
            RuntimeError("File not found or corrupted."),
            DataError,
            r"\(File not found or corrupted.\). Try again with a",
        ),
        (TimeoutError("timed out"), DataError, r"get it from http://host.robots.ox.ac.uk.* unpack it as .*VOC2007"),
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, r"cannot be written to \(No space left"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_what_fails_leaves_nothing(tmp_path, monkeypatch, fault, kind, message):
    def fail(root: str, *, year: str, image_set: str, download: bool) -> None:
        devkit(root, year=year, image_set="trainval", download=download)
        assert socket.getdefaulttimeout() == fetching.STALL_SECONDS
        if image_set == "test":
            raise fault

    monkeypatch.setattr(fetching.datasets, "VOCSegmentation", fail)
    with pytest.raises(kind, match=message):
        fetch("voc2007", tmp_path / "deep" / "data")
    assert list(tmp_path.iterdir()) == []
    assert socket.getdefaulttimeout() is None
    (tmp_path / "mine.txt").touch()
    with pytest.raises(kind):
        fetch("voc2007", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_a_network_by_choice(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGWRIGHT_OFFLINE", "1")
    with pytest.raises(DataError, match="'voc2012' is not here, and SEGWRIGHT_OFFLINE is set"):
        fetch("voc2012", tmp_path)


def test_what_cannot_be_downloaded_says_where_it_is_to_be_had(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "get", "mars", "-o", "sets") == 2
    told = capsys.readouterr().err
    assert "sets/mars_for_students.npz: is missing: 'mars' cannot be downloaded, it is of the second homework" in told
    assert "put it there as sets/mars_for_students.npz." in told
    assert list(tmp_path.iterdir()) == []
    Path("sets").mkdir()
    Path("sets/mars_for_students.npz").touch()
    assert call(monkeypatch, "get", "mars", "-o", "sets") == 0
    assert "segwright train sets/mars_for_students.npz --classes background,soil," in capsys.readouterr().out
    for name in ("drone", "flood"):
        assert call(monkeypatch, "get", name) == 2
        assert f"data/{name}" in capsys.readouterr().err


def test_the_list_and_wrong_names(monkeypatch, capsys):
    assert call(monkeypatch) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in PUBLIC_SETS)
    assert {name for name, one in PUBLIC_SETS.items() if not one.how} == set(fetching._LOADERS)
    assert call(monkeypatch, "get") == 2
    assert call(monkeypatch, "get", "voc2008") == 2
    assert "Did you mean 'voc20" in capsys.readouterr().err
