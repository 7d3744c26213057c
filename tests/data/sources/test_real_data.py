"""Four real data sets are read as their README says; skipped where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from segwright.data.sources import open_source

DATA = Path(os.environ.get("SEGWRIGHT_DATA") or Path(__file__).parents[4] / "shared" / "data")
pytestmark = pytest.mark.data


def folder(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent; SEGWRIGHT_DATA names the folder of data")
    return DATA / name


def test_camvid_keeps_its_sides():
    source = open_source(folder("camvid"))
    sides = [sample.split for sample in source.samples]
    assert (len(sides), sides.count("train"), sides.count("val")) == (468, 367, 101)
    assert all(sample.mask is not None for sample in source.samples)
    assert source.coding.values == tuple(range(12))
    assert source.classes.num_classes == 12
    for sample in source.samples[::100]:
        image, mask = source.read(sample)
        assert image.shape == (3, 360, 480)
        assert mask.max() <= 11


def test_the_mars_stand_in_has_an_unlabelled_test_set():
    path = folder("mars_standin") / "mars_standin.npz"
    source = open_source(path)
    labelled = [sample for sample in source.samples if sample.mask is not None]
    assert (len(labelled), len(source.samples)) == (2615, 2615 + 900)
    assert (labelled[0].id, labelled[-1].id, source.samples[-1].id) == ("00000", "02614", "test/00899")
    assert {sample.split for sample in labelled} == {None}
    assert {sample.split for sample in source.samples[2615:]} == {"test"}
    assert source.coding.values == tuple(range(5))
    with np.load(path) as arrays:
        stack = arrays["training_set"]
    image, mask = source.read(labelled[1234])
    np.testing.assert_array_equal(image, stack[1234, :1])
    np.testing.assert_array_equal(mask, stack[1234, 1])


def test_nuclei_have_many_sizes_and_channel_counts():
    source = open_source(folder("nuclei"))
    assert len(source.samples) == 300
    assert source.classes.num_classes == 2
    shapes = set()
    for sample in source.samples[::6]:
        image, mask = source.read(sample)
        assert set(np.unique(mask)) <= {0, 1}
        shapes.add(image.shape)
    assert len({shape[1:] for shape in shapes}) > 2
    assert len({shape[0] for shape in shapes}) > 1


def test_membranes_are_black_and_white():
    source = open_source(folder("membranes"))
    assert len(source.samples) == 20
    assert source.coding.values == (0, 255)
    assert source.coding.void == ()
    assert source.classes.num_classes == 2
    image, mask = source.read(source.samples[0])
    assert image.shape == (1, 512, 512)
    assert sorted(np.unique(mask)) == [0, 1]
