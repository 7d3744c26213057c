"""Weights of an average: the top of the likelihood, a better mIoU, and a gain that is measured on other images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from segwright.evaluation.ensemble_weights import Answers, fit, weights_of
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
