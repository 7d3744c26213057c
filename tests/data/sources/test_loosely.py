"""What `open_source` refuses is told by `open_loosely`, and a card that drops it makes it readable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.data.card import write_card
from segwright.data.sources import Loose, open_loosely, open_source
from segwright.errors import DataError

HALVES = np.repeat(np.array([[0, 1, 2]], dtype=np.uint8), 8, axis=0).repeat(4, axis=1)


def lay(root: Path, *names: str) -> Path:
    """Write one picture of 0, 1 and 2 under each name: good as an image and as a mask."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(HALVES).save(path)
    return root


def opened(root: Path) -> Loose:
    return open_loosely(root, progress=False)


def reopened(root: Path, loose: Loose, card: Path) -> list[str]:
    """The ids that a card leaves which drops whatever was told."""
    reasons = {stray.id: stray.error.problem for stray in loose.strays if not stray.harmless}
    write_card(card, {**loose.source.as_card(), "dropped": reasons | dict.fromkeys(loose.odd, "odd")})
    source = open_source(card)
    for sample in source.samples:
        source.read(sample)
    return [sample.id for sample in source.samples]


@pytest.mark.parametrize(
    ("names", "strays", "left"),
    [
        (["images/a.png", "images/b.png", "masks/b.png"], {"a": "missing_mask"}, ["b"]),
        (
            ["images/a.png", "masks/a.png", "masks/a_mask.png", "images/b.png", "masks/b.png"],
            {"a": "double_mask"},
            ["b"],
        ),
        (["images/a.png", "images/a.tif", "masks/a.png"], {"images/a.tif": "double_name"}, ["a"]),
        (
            ["train/images/a.png", "train/masks/a.png", "val/images/b.png", "val/images/c.png", "val/masks/c.png"],
            {"val/b": "missing_mask"},
            ["train/a", "val/c"],
        ),
        (
            ["train/images/a.png", "train/masks/a.png", "train/masks/a_gt.png", "val/images/c.png", "val/masks/c.png"],
            {"train/a": "double_mask"},
            ["val/c"],
        ),
    ],
)
def test_strays_of_folders(tmp_path, names, strays, left):
    root = lay(tmp_path / "set", *names)
    with pytest.raises(DataError):
        open_source(root)
    loose = opened(root)
    assert {stray.id: stray.kind for stray in loose.strays} == strays
    assert reopened(root, loose, tmp_path / "card.yaml") == left


def test_masks_without_an_image_are_harmless(tmp_path):
    root = lay(tmp_path, "images/a.png", "masks/a.png", "masks/z.png")
    (stray,) = opened(root).strays
    assert (stray.kind, stray.id, stray.harmless) == ("missing_image", "masks/z.png", True)
    assert [sample.id for sample in open_source(root).samples] == ["a"]


def test_images_to_predict_and_test_images_need_no_mask(tmp_path):
    assert opened(lay(tmp_path / "bare", "a.png", "b.png")).strays == ()
    assert opened(lay(tmp_path / "sides", "images/a.png", "masks/a.png", "test/c.png")).strays == ()


def test_strays_of_a_manifest(tmp_path):
    root = lay(tmp_path / "set", "a.png", "m/a.png", "b.png", "m/b.png")
    lines = [
        "image,mask,split",
        "a.png,m/a.png,",
        "gone.png,m/b.png,",
        "b.png,m/gone.png,",
        "b.png,m/b.png,dusk",
        ",m/b.png,",
    ]
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    loose = opened(root / "list.csv")
    assert [(stray.kind, stray.id) for stray in loose.strays] == [
        ("broken_line", "gone"), ("broken_line", "b"), ("broken_line", "b"), ("broken_line", "line 6"),
    ]  # fmt: skip
    assert "line 3 names image 'gone.png'" in loose.strays[0].error.problem
    with pytest.raises(DataError, match=r"line 3 names image"):
        open_source(root / "list.csv")
    assert reopened(root, loose, tmp_path / "card.yaml") == ["a"]


def test_strays_of_voc(tmp_path):
    root = lay(
        tmp_path / "voc", "JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/b.tif", "SegmentationClass/a.png",
        "SegmentationClass/b.png", "SegmentationClass/c.png",
    )  # fmt: skip
    loose = opened(root)
    assert {stray.id: stray.kind for stray in loose.strays} == {"b.tif": "double_name", "c": "missing_image"}
    assert reopened(root, loose, tmp_path / "card.yaml") == ["a", "b"]


def test_odd_masks_by_id(tmp_path):
    root = lay(tmp_path / "set", *(f"{folder}/{place}.png" for folder in ("images", "masks") for place in range(9)))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(root / "masks/3.png")
    (root / "masks/5.png").write_bytes(b"")
    loose = opened(root)
    assert {name: odd.kind for name, odd in loose.odd.items()} == {"3": "color_confusion", "5": "broken_mask"}
    assert loose.source.coding.values == (0, 1, 2)
    assert len(loose.source.samples) == 9
    assert reopened(root, loose, tmp_path / "card.yaml") == list("0124678")


def test_arrays(tmp_path):
    masks = np.repeat(HALVES[None], 12, axis=0)
    masks[3, :4, :4] = 99
    np.savez(tmp_path / "set.npz", images=masks, masks=masks)
    loose = opened(tmp_path / "set.npz")
    assert {name: odd.kind for name, odd in loose.odd.items()} == {"00003": "unknown_label"}


def test_clean_sources_are_opened_alike(tmp_path):
    root = lay(tmp_path / "set", "train/images/a.png", "train/masks/a.png", "val/images/b.png", "val/masks/b.png")
    (root / "classes.txt").write_text("sky\nsoil\nrock\n")
    write_card(root / "data.yaml", {"source": str(root), "ignore_in_score": ["sky"], "dropped": {"val/b": "dark"}})
    for path in (root, root / "data.yaml"):
        loose = opened(path)
        assert (loose.strays, loose.odd) == ((), {})
        assert loose.source == open_source(path)


@pytest.mark.parametrize("make", [lambda root: root / "gone", lambda root: root])
def test_nothing_at_all_is_an_error(tmp_path, make):
    with pytest.raises(DataError, match=r"does not exist|no pictures"):
        opened(make(tmp_path))
