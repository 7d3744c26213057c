"""Predictions keep size and order, agree with the plain model, and take any sensible image."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from segwright.bundle import Bundle, save_bundle
from segwright.errors import DataError, RecipeError
from segwright.models import ModelSpec, build_model
from segwright.prediction.fitting import as_image, fit, scale_down
from segwright.prediction.predictor import Predictor, load
from segwright.types import ClassSet

CLASSES = ClassSet(("a", "b", "c", "d"), ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)))


def make_bundle(*, in_channels: int = 3, scale: float = 255.0, info: dict | None = None) -> Bundle:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="unet", in_channels=in_channels, num_classes=4, encoder=None, arguments={"depth": 2, "width": 4},
        mean=(0.5,) * in_channels, std=(0.25,) * in_channels, scale=scale, never_predict=(),
    )  # fmt: skip
    model = build_model(spec).train()
    with torch.no_grad():  # running statistics away from their start, so that training mode would show
        model(torch.randint(0, 256, (4, in_channels, 32, 32), dtype=torch.uint8))
    return Bundle(model=model.eval(), classes=CLASSES, info=info or {})


def picture(rng: np.random.Generator, height: int, width: int, channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (channels, height, width), dtype=np.uint8)


@torch.inference_mode()
def test_agrees_with_the_plain_model(rng: np.random.Generator) -> None:
    bundle = make_bundle()
    image = picture(rng, 37, 50)
    logits = bundle.model(torch.from_numpy(image)[None])
    prediction = Predictor(bundle, device="cpu", precision="fp32").predict(image, probs=True)
    assert prediction.probs is not None
    np.testing.assert_allclose(prediction.probs, F.softmax(logits, 1)[0].numpy(), atol=1e-5)
    np.testing.assert_array_equal(prediction.mask, logits.argmax(1)[0].numpy())
    assert prediction.mask.dtype == np.uint8
    assert sum(prediction.shares.values()) == pytest.approx(1)
    assert prediction.shares[prediction.prevalent] == max(prediction.shares.values())
    assert list(prediction.shares) == list(CLASSES.names)


def test_what_a_batch_too_large_has_left_is_given_back_before_its_halves_are_tried(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(make_bundle(), device="cpu", precision="fp32", batch_size=4)
    images = [picture(rng, 20, 24) for _ in range(4)]
    alone = [predictor.predict(image).mask for image in images]
    left: list[weakref.ref[torch.Tensor]] = []
    answer = predictor._answer

    def short_of_memory(given: torch.Tensor) -> torch.Tensor:
        assert not any(activation() is not None for activation in left)
        if len(given) > 1:
            activation = given.float()
            left.append(weakref.ref(activation))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return answer(given)

    monkeypatch.setattr(predictor, "_answer", short_of_memory)
    for prediction, mask in zip(predictor.predict_many(images), alone, strict=True):
        np.testing.assert_array_equal(prediction.mask, mask)
    assert len(left) == 3


def test_order_stays_and_batches_are_small(rng: np.random.Generator) -> None:
    predictor = Predictor(make_bundle(), device="cpu", precision="fp32", batch_size=3)
    sizes = [(20, 24), (31, 17), (20, 24), (20, 24), (31, 17), (9, 9), (20, 24)]
    images = [picture(rng, *size) for size in sizes]
    alone = [predictor.predict(image) for image in images]
    taken = 0

    def feed() -> Iterator[np.ndarray]:
        nonlocal taken
        for image in images:
            taken += 1
            yield image

    for done, (together, single) in enumerate(zip(predictor.predict_many(feed()), alone, strict=True)):
        assert taken <= done + 2 * 3  # read ahead by a batch, never the whole
        np.testing.assert_array_equal(together.mask, single.mask)
    assert taken == len(images)


def test_nothing_in_nothing_out() -> None:
    assert list(Predictor(make_bundle(), device="cpu").predict_many([])) == []


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_low_precision_nearly_agrees(rng: np.random.Generator, precision: str) -> None:
    bundle, image = make_bundle(), picture(rng, 40, 40)
    exact = Predictor(bundle, device="cpu", precision="fp32").predict(image, probs=True)
    quick = Predictor(bundle, device="cpu", precision=precision).predict(image, probs=True)
    assert exact.probs is not None
    assert quick.probs is not None
    np.testing.assert_allclose(quick.probs, exact.probs, atol=0.05)


def test_paths_pillow_and_arrays_mean_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    predictor = Predictor(make_bundle(), device="cpu", precision="fp32")
    image = picture(rng, 18, 22)
    rows = np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(rows).save(tmp_path / "a.png")
    given_as = [image, rows, Image.fromarray(rows), tmp_path / "a.png", str(tmp_path / "a.png")]
    masks = [prediction.mask for prediction in predictor.predict_many(given_as)]
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_working_size_is_used_and_undone(rng: np.random.Generator) -> None:
    bundle = make_bundle(info={"input": {"working_size_px": 32}})
    image = picture(rng, 60, 100)
    mask = Predictor(bundle, device="cpu", precision="fp32").predict(image).mask
    assert mask.shape == (60, 100)
    small = torch.from_numpy(scale_down(image, longer_side_px=32))[None]
    with torch.inference_mode():
        logits = F.interpolate(bundle.model(small), size=(60, 100), mode="bilinear")
    assert (mask == logits.argmax(1)[0].numpy()).mean() > 0.999


@given(height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([1, 3, 4]), last=st.booleans())
def test_as_image_finds_the_channels(height: int, width: int, channels: int, last: bool) -> None:
    array = np.zeros((height, width, channels) if last else (channels, height, width), dtype=np.uint8)
    image = as_image(array, in_channels=3)
    assert sorted(image.shape) == sorted(array.shape)
    unambiguous = height not in (1, 3, 4) and width not in (1, 3, 4)
    if unambiguous:
        assert image.shape == (channels, height, width)


def test_what_is_no_image_is_refused() -> None:
    for shape in ((5,), (2, 3, 4, 5), (7, 20, 30), (0, 4)):
        with pytest.raises(DataError):
            as_image(np.zeros(shape, dtype=np.uint8), in_channels=3)


def spec(channels: int, scale: float = 255.0) -> ModelSpec:
    return make_bundle(in_channels=channels, scale=scale).model.spec


def test_channels_are_fitted() -> None:
    gray = np.full((1, 2, 2), 80, dtype=np.uint8)
    color = np.stack([np.full((2, 2), value, dtype=np.uint8) for value in (200, 100, 50)])
    assert (fit(gray, spec(3)) == 80).all()
    assert fit(gray, spec(3)).shape == (3, 2, 2)
    assert (fit(color, spec(1)) == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)).all()
    alpha = np.concatenate([color, gray])
    np.testing.assert_array_equal(fit(alpha, spec(3)), color)
    np.testing.assert_array_equal(fit(alpha, spec(4)), alpha)
    with pytest.raises(DataError, match="7 channels"):
        fit(np.zeros((7, 2, 2), dtype=np.uint8), spec(3))


def test_bit_depths_are_fitted() -> None:
    eight = np.array([[[0, 1, 255]]], dtype=np.uint8)
    sixteen = fit(eight, spec(1, 65535.0))
    assert sixteen.dtype == np.uint16
    assert sixteen.ravel().tolist() == [0, 257, 65535]
    np.testing.assert_array_equal(fit(sixteen, spec(1)), eight)
    with pytest.raises(DataError, match="float"):
        fit(eight.astype(np.float32) / 255, spec(1))
    with pytest.raises(DataError, match="float32"):
        fit(eight, spec(1, 1.0))


def test_load_takes_run_and_bundle(tmp_path: Path, rng: np.random.Generator) -> None:
    bundle = make_bundle()
    save_bundle(tmp_path / "run" / "bundle", bundle.model, classes=CLASSES, info={})
    image = picture(rng, 16, 16)
    masks = [load(path, device="cpu").predict(image).mask for path in (tmp_path / "run", tmp_path / "run" / "bundle")]
    np.testing.assert_array_equal(masks[0], masks[1])


def test_wrong_settings_are_refused() -> None:
    bundle = make_bundle()
    with pytest.raises(RecipeError, match="batch of 0"):
        Predictor(bundle, device="cpu", batch_size=0)
    with pytest.raises(RecipeError, match="device"):
        Predictor(bundle, device="toaster")
    with pytest.raises(RecipeError, match="fp16"):
        Predictor(bundle, device="cpu", precision="fp16")


def test_large_images_go_through_in_tiles(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 10_000)
    bundle = make_bundle()
    images = [picture(rng, 30, 40), picture(rng, 150, 210), picture(rng, 30, 40), picture(rng, 140, 90, channels=1)]
    whole = Predictor(bundle, device="cpu", precision="fp32", tile_px=None)
    tiled = Predictor(bundle, device="cpu", precision="fp32", tile_px=128)
    for one, other in zip(whole.predict_many(images, probs=True), tiled.predict_many(images, probs=True), strict=True):
        assert one.probs is not None
        assert other.probs is not None
        np.testing.assert_allclose(one.probs, other.probs, atol=1e-5)
        assert (one.mask == other.mask).mean() > 0.999
        assert one.shares == pytest.approx(other.shares, abs=1e-3)
    with pytest.raises(RecipeError, match="tiles of 20 pixels"):
        Predictor(bundle, device="cpu", tile_px=20)


def test_large_images_are_seen_at_the_working_size(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    bundle = make_bundle(info={"input": {"working_size_px": 60}})
    image = picture(rng, 150, 210)
    whole = Predictor(bundle, device="cpu", precision="fp32").predict(image, probs=True)
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 10_000)
    large = Predictor(bundle, device="cpu", precision="fp32").predict(image, probs=True)
    assert whole.probs is not None
    assert large.probs is not None
    np.testing.assert_allclose(whole.probs, large.probs, atol=1e-5)


def test_scaling_down_does_not_depend_on_the_order_in_memory(rng: np.random.Generator) -> None:
    for channels in (1, 3, 4, 5):
        planes = picture(rng, 50, 70, channels=channels)
        pixels = np.ascontiguousarray(planes.transpose(1, 2, 0)).transpose(2, 0, 1)
        np.testing.assert_array_equal(scale_down(planes, longer_side_px=30), scale_down(pixels, longer_side_px=30))
