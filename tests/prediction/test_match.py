"""Matching at test time: a picture of another light is labelled as one of the light that the model knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segwright.augment.matching import matched, reference_of
from segwright.bundle import Bundle, card
from segwright.data.pack import pack_arrays
from segwright.errors import RecipeError, RunError
from segwright.evaluation.evaluate import evaluate
from segwright.models import ModelSpec, build_model
from segwright.prediction import predictor as rooms
from segwright.prediction.predictor import Predictor
from segwright.types import ClassSet

CLASSES = ClassSet(("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))


def pictures(count: int, *, low: int, high: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(low, high, (3, 24, 32), dtype=np.uint8) for _ in range(count)]


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="unet", in_channels=3, num_classes=3, encoder=None, arguments={"depth": 2, "width": 4},
        mean=(0.5,) * 3, std=(0.25,) * 3, scale=255.0, never_predict=(),
    )  # fmt: skip
    tones = reference_of(pictures(6, low=120, high=220)).tolist()
    return Bundle(build_model(spec).eval(), CLASSES, {"input": {"working_size_px": None, "tones": tones}})


@pytest.mark.parametrize("how", ["moments", "histogram"])
def test_predictions_are_those_of_matched_pictures(bundle, how, monkeypatch):
    dark = pictures(3, low=10, high=60)
    reference = np.array(bundle.info["input"]["tones"], dtype=np.float32)
    by_hand = [matched(image, reference, how=how) for image in dark]
    plain = Predictor(bundle, device="cpu", precision="fp32")
    itself = Predictor(bundle, device="cpu", precision="fp32", match=how)
    for one, other in zip(itself.predict_many(dark), plain.predict_many(by_hand), strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
    monkeypatch.setattr(rooms, "is_large", lambda *size, tile_px: True)
    np.testing.assert_array_equal(itself.predict(dark[0]).mask, plain.predict(by_hand[0]).mask)
    monkeypatch.undo()
    assert any((plain.predict(a).mask != plain.predict(b).mask).any() for a, b in zip(dark, by_hand, strict=True))


def test_scores_are_those_of_matched_pictures(bundle):
    dark = pictures(4, low=10, high=60)
    masks = [np.random.default_rng(n).integers(0, 3, (24, 32), dtype=np.uint8) for n in range(4)]
    reference = np.array(bundle.info["input"]["tones"], dtype=np.float32)
    by_hand = pack_arrays([matched(image, reference, how="histogram") for image in dark], masks)

    def counts(pack, how):
        done = evaluate(bundle, pack, range(4), split_name="x", out=None, device="cpu", match=how, progress=False)
        assert done.summary["match"] == how
        return done.confusion

    np.testing.assert_array_equal(counts(pack_arrays(dark, masks), "histogram"), counts(by_hand, "none"))


def test_a_model_without_tones_says_so(bundle):
    old = Bundle(bundle.model, CLASSES, {"input": {"working_size_px": None}})
    with pytest.raises(RecipeError, match="keeps no tones"):
        Predictor(old, device="cpu", match="histogram")
    broken = Bundle(bundle.model, CLASSES, {"input": {"tones": [[1.0, 2.0]]}})
    with pytest.raises(RunError, match="damaged"):
        Predictor(broken, device="cpu", match="moments")


def test_the_card_tells_of_the_tones_without_listing_them(bundle):
    text = card(bundle.model.spec, classes=CLASSES, info=bundle.info)
    assert "tones: 3 x 256 values" in text
    assert len(text) < 2000
