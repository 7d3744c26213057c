"""Generated terrain is the same for the same seed, labelled exactly, and laid out as the readers expect."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.data.sources import open_source
from segwright.data.synthetic import (
    BOULDER,
    SKY,
    TERRAIN_COLORS,
    TERRAIN_NAMES,
    fractal_noise,
    main,
    terrain,
    terrain_stack,
    write_image,
    write_terrain,
)
from segwright.errors import OutputError


def test_the_seed_decides():
    images, masks = terrain_stack(4, size=(40, 48), seed=3)
    again, masks_again = terrain_stack(4, size=(40, 48), seed=3)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(masks, masks_again)
    fewer, _ = terrain_stack(2, size=(40, 48), seed=3)
    np.testing.assert_array_equal(fewer, images[:2])
    other, _ = terrain_stack(4, size=(40, 48), seed=4)
    assert (other != images).any(axis=(1, 2, 3)).all()
    assert len({image.tobytes() for image in images}) == 4


@given(rows=st.integers(32, 70), columns=st.integers(32, 70), seed=st.integers(0, 10_000))
def test_any_size_gives_bytes_and_labels(rows, columns, seed):
    image, mask = terrain(np.random.default_rng(seed), (rows, columns))
    assert image.dtype == mask.dtype == np.uint8
    assert (image.shape, mask.shape) == ((3, rows, columns), (rows, columns))
    assert mask.max() < len(TERRAIN_NAMES)
    assert image.std() > 5


def test_every_class_occurs_and_boulders_are_rare():
    _, masks = terrain_stack(60, size=(48, 64))
    shares = np.bincount(masks.ravel(), minlength=5) / masks.size
    assert (shares[:BOULDER] > 0.05).all()
    assert 0 < shares[BOULDER] < 0.05
    with_boulder = (masks == BOULDER).any(axis=(1, 2)).mean()
    assert 0.1 < with_boulder < 0.6


def test_sky_is_above_and_classes_differ_in_colour():
    images, masks = terrain_stack(12, size=(48, 64))
    assert (masks[:, 0] == SKY).mean() > 0.9
    assert (masks[:, -1] != SKY).all()
    means = np.stack([images.transpose(0, 2, 3, 1)[masks == label].mean(axis=0) for label in range(4)])
    apart = np.abs(means[:, None] - means[None]).max(axis=2)[~np.eye(4, dtype=bool)]
    assert apart.min() > 10


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), cell=st.floats(0.5, 30), octaves=st.integers(1, 4))
def test_noise_fills_its_size(rows, columns, cell, octaves):
    noise = fractal_noise(np.random.default_rng(0), (rows, columns), cell_px=cell, octaves=octaves)
    assert noise.shape == (rows, columns)
    assert np.isfinite(noise).all()
    if rows * columns > 1:
        assert noise.std() == pytest.approx(1, rel=1e-3)


def test_smooth_noise_is_smooth():
    def step(cell):
        noise = fractal_noise(np.random.default_rng(0), (64, 64), cell_px=cell, octaves=1)
        return np.abs(np.diff(noise, axis=1)).mean()

    assert step(32) < 0.5 * step(8) < 0.5 * step(2)


@pytest.mark.parametrize("layout", ["sides", "pairs"])
def test_a_folder_is_written_and_read_back(tmp_path, layout):
    out = write_terrain(tmp_path / "set", images=10, size=(32, 36), seed=7, layout=layout)
    images, masks = terrain_stack(10, size=(32, 36), seed=7)
    source = open_source(out)
    assert source.classes.names == TERRAIN_NAMES
    sides = [sample.split for sample in source.samples]
    assert sides == ([None] * 10 if layout == "pairs" else [sample.id.split("/")[0] for sample in source.samples])
    if layout == "sides":
        assert (sides.count("train"), sides.count("val"), sides.count("test")) == (7, 2, 1)
    for sample in source.samples:
        place = int(sample.id[-4:])
        image, mask = source.read(sample)
        np.testing.assert_array_equal(image, images[place])
        np.testing.assert_array_equal(mask, masks[place])


def test_arrays_are_written_and_read_back(tmp_path):
    out = write_terrain(tmp_path / "set.npz", images=6, size=(32, 36), seed=7)
    images, masks = terrain_stack(6, size=(32, 36), seed=7)
    source = open_source(out)
    assert source.classes.names == TERRAIN_NAMES
    for place, sample in enumerate(source.samples):
        image, mask = source.read(sample)
        np.testing.assert_array_equal(image, images[place])
        np.testing.assert_array_equal(mask, masks[place])


def test_five_images_fill_every_side(tmp_path):
    source = open_source(write_terrain(tmp_path / "set", images=5, size=(32, 32)))
    assert {sample.split for sample in source.samples} == {"train", "val", "test"}


def test_the_colours_of_the_classes_are_in_the_masks(tmp_path):
    source = open_source(write_terrain(tmp_path / "set", images=40, size=(32, 32), layout="pairs"))
    assert source.classes.colors == TERRAIN_COLORS


@pytest.mark.parametrize("name", ["set", "set.npz"])
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match="exists already"):
        write_terrain(tmp_path / name, images=5, size=(32, 32))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_written_with_their_channels(tmp_path, rng, channels):
    image = rng.integers(0, 256, (channels, 9, 11), dtype=np.uint8)
    write_image(tmp_path / "deep" / "a.png", image)
    source = open_source(tmp_path / "deep")
    np.testing.assert_array_equal(source.read_image(source.samples[0]), image)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    out = tmp_path / "terrain"
    monkeypatch.setattr(sys, "argv", ["synthetic", str(out), "--images", "5", "--size", "32", "40", "--seed", "2"])
    main()
    assert capsys.readouterr().out == f"wrote 5 images of 32 x 40 pixels to {out}\n"
    source = open_source(out)
    assert len(source.samples) == 5
    assert source.read_image(source.samples[0]).shape == (3, 32, 40)
