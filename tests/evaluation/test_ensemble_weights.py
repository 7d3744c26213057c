"""Weights of an average: the top of the likelihood, a better mIoU, and a gain that is measured on other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from scipy.special import softmax

from segwright.bundle import Bundle
from segwright.data import tiles
from segwright.data.eval_loader import EvalLoader
from segwright.data.pack import Pack, open_pack
from segwright.data.sources import open_source
from segwright.evaluation import ensemble_weights
from segwright.evaluation.counting import Network
from segwright.evaluation.ensemble_weights import Answers, ask, fit, weights_of
from segwright.models import ModelSpec, build_model
from segwright.types import ClassSet

CLASSES = ClassSet(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)))


def answers(*sureness: float, images: int = 12, pixels: int = 300, seed: int = 0) -> Answers:
    """Models that are right the more, the surer they are; each errs on pixels of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images * pixels).astype(np.uint8)
    z = [s * np.eye(3)[labels].T + rng.normal(0, 1, (3, len(labels))) for s in sureness]
    probs = np.stack([softmax(one, axis=0) for one in z]).astype(np.float16)
    return Answers(probs, labels, np.repeat(np.arange(images), pixels), tuple(range(images)))


def test_the_likeliest_weights_are_those_of_a_general_optimiser() -> None:
    given = answers(1.2, 0.8, 0.1)
    found = weights_of(given, CLASSES, by="likelihood")
    truth = np.take_along_axis(given.probs.astype(float), given.labels[None, None].astype(int), axis=1)[:, 0]

    def loss(w: np.ndarray) -> float:
        return -float(np.log(w @ truth).mean())

    whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(loss, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=[whole], method="SLSQP")
    assert loss(found) == pytest.approx(best.fun, abs=1e-5)
    assert found == pytest.approx(best.x, abs=0.02)
    assert found.sum() == pytest.approx(1)
    assert found[0] > found[1] > found[2]


def test_weights_by_miou_are_not_worse_than_equal_or_likeliest_ones() -> None:
    given = answers(1.2, 0.9, 0.0)

    def miou(weights: np.ndarray) -> float:
        pred = np.tensordot(weights, given.probs.astype(float), 1).argmax(0)
        return float(np.mean([((pred == k) & (given.labels == k)).sum() / ((pred == k) | (given.labels == k)).sum()
                              for k in range(3)]))  # fmt: skip

    by = {name: miou(weights_of(given, CLASSES, by=name)) for name in ("equal", "likelihood", "miou")}
    assert by["miou"] >= max(by["equal"], by["likelihood"]) - 2e-3


def test_the_gain_of_models_that_err_apart_is_found() -> None:
    found = fit(answers(1.0, 1.0, images=20), CLASSES, by="likelihood")
    assert found.together > max(found.alone)
    assert found.gain.difference.low > 0
    assert found.weights == pytest.approx((0.5, 0.5), abs=0.05)


def test_a_model_twice_gains_nothing_and_one_model_has_all_weight() -> None:
    one = answers(1.0)
    twice = Answers(np.concatenate([one.probs, one.probs]), one.labels, one.image, one.positions)
    found = fit(twice, CLASSES, by="miou", groups=[i // 3 for i in range(12)])
    assert found.gain.difference.estimate == 0
    assert found.gain.verdict() == "too close to call"
    assert fit(one, CLASSES, by="likelihood").weights == (1.0,)


def test_a_soup_is_scored_on_images_that_its_weights_were_not_fitted_on() -> None:
    """A soup that knows the images it was made for by heart, and no others, must not look good."""
    given = answers(1.2, 0.8)
    asked = []

    def soup(weights: Sequence[float], positions: Sequence[int]) -> Answers:
        others = given.of(np.setdiff1d(np.arange(12), positions))
        assert weights == weights_of(others, CLASSES, by="likelihood").tolist()
        asked.extend(positions)
        held = given.of(np.asarray(positions))
        places = np.searchsorted(positions, held.image)
        wrong = np.eye(3, dtype=np.float16)[(held.labels + 1) % 3].T[None]
        return Answers(wrong, held.labels, places, tuple(positions))

    found = fit(given, CLASSES, by="likelihood", soup=soup)
    assert sorted(asked) == list(range(12))
    assert found.together == 0
    assert found.gain.difference.high < 0
    assert found.weights == fit(given, CLASSES, by="likelihood").weights


def test_a_soup_that_says_what_the_average_says_is_worth_as_much() -> None:
    given = answers(1.2, 0.8)

    def soup(weights: Sequence[float], positions: Sequence[int]) -> Answers:
        held = given.of(np.asarray(positions))
        mixed = np.tensordot(weights, held.probs.astype(np.float32), 1)[None].astype(np.float16)
        return Answers(mixed, held.labels, np.searchsorted(positions, held.image), tuple(positions))

    plain, same = fit(given, CLASSES, by="miou"), fit(given, CLASSES, by="miou", soup=soup)
    assert same.together == pytest.approx(plain.together, abs=1e-3)  # of half precision


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Four pictures of one size and one of twice the side, with some void pixels."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i, side in enumerate((64, 64, 64, 64, 128)):
        mask = rng.choice([0, 1, 2, 255], size=(side, side), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
        Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return open_pack(open_source(root, void_values=(255,)), progress=False)


def one_bundle() -> Bundle:
    model = build_model(ModelSpec("unet", 1, 3, arguments={"width": 2, "depth": 1})).eval()
    return Bundle(model, CLASSES, {})


@pytest.mark.parametrize("tile_px", [None, 64])
def test_of_too_many_pixels_every_image_keeps_the_same_share(
    pictures: Pack, monkeypatch: pytest.MonkeyPatch, tile_px: int | None
) -> None:
    valid = pictures.class_pixels[:, :255].sum(1)
    monkeypatch.setattr(ensemble_weights, "MOST_NUMBERS", 3 * int(valid.sum()) // 4)
    if tile_px is not None:
        monkeypatch.setattr(ensemble_weights, "EvalLoader", partial(EvalLoader, tile_px=tile_px))
        monkeypatch.setattr(tiles, "LARGE_IMAGE_PX", 100 * 100)
    told = ask([one_bundle()], pictures, range(5))
    assert told.share == pytest.approx(0.25, abs=1e-3)
    kept = np.bincount(told.image, minlength=5)
    assert kept / valid == pytest.approx(np.full(5, 0.25), abs=0.035)
    assert abs(told.probs.size - ensemble_weights.MOST_NUMBERS) < 0.05 * ensemble_weights.MOST_NUMBERS


def test_a_draw_of_pixels_is_that_of_its_image_whatever_is_asked_beside(pictures: Pack) -> None:
    bundle = one_bundle()
    every = ask([bundle, bundle], pictures, range(5), share=0.3)
    again = ask([bundle], pictures, [4, 1], share=0.3, batch_size=1)
    for place, position in ((0, 4), (1, 1)):
        one, other = every.of(np.array([position])), again.of(np.array([place]))
        assert np.array_equal(one.labels, other.labels)
        assert np.allclose(one.probs[:1], other.probs, atol=2e-3)
    assert len(ask([bundle], pictures, [4], share=1.0).labels) == pictures.class_pixels[4, :255].sum()


@pytest.mark.parametrize("tile_px", [None, 64])
def test_models_are_asked_at_their_working_size_and_answer_every_pixel(
    pictures: Pack, monkeypatch: pytest.MonkeyPatch, tile_px: int | None
) -> None:
    if tile_px is not None:
        monkeypatch.setattr(ensemble_weights, "EvalLoader", partial(EvalLoader, tile_px=tile_px))
        monkeypatch.setattr(tiles, "LARGE_IMAGE_PX", 100 * 100)
    bundle = replace(one_bundle(), info={"input": {"working_size_px": 40}})
    seen: list[int] = []
    bundle.model.register_forward_pre_hook(lambda _, given: seen.append(max(given[0].shape[2:])))
    told = ask([bundle], pictures, range(5), share=1.0)
    assert len(told.labels) == pictures.class_pixels[:, :255].sum()
    assert max(seen) <= 40
    if tile_px is None:
        evaluated = Network(bundle, torch.device("cpu"), batch_size=8)
        counts = sum(one.confusion for one in evaluated.count(pictures, range(5)))
        own = np.zeros((3, 3), dtype=np.int64)
        np.add.at(own, (told.labels, told.probs[0].argmax(0)), 1)
        assert np.abs(own - counts).sum() <= 4e-3 * own.sum()
