from __future__ import annotations

import numpy as np
import pytest

from segwright.errors import RecipeError
from segwright.losses.class_weights import CLASS_WEIGHTS, class_weights
from segwright.recipe import CLASS_WEIGHTINGS

COUNTS = [700_000, 250_000, 50_000]


def test_the_recipe_knows_the_whole_table() -> None:
    assert set(CLASS_WEIGHTINGS) == set(CLASS_WEIGHTS)


@pytest.mark.parametrize("name", sorted(CLASS_WEIGHTS))
def test_rarer_classes_never_weigh_less_and_the_mean_is_one(name: str) -> None:
    weights = class_weights(name, counts=COUNTS)
    assert np.mean(weights) == pytest.approx(1)
    assert weights[0] <= weights[1] <= weights[2]
    if name != "none":
        assert weights[0] < weights[2]


def test_known_ratios() -> None:
    assert class_weights("inverse", counts=COUNTS)[2] / class_weights("inverse", counts=COUNTS)[0] == pytest.approx(14)
    assert class_weights("sqrt_inverse", counts=COUNTS)[2] / class_weights("sqrt_inverse", counts=COUNTS)[
        0
    ] == pytest.approx(14**0.5)
    enet = class_weights("enet_log", counts=COUNTS)
    assert enet[2] / enet[0] == pytest.approx(np.log(1.02 + 0.7) / np.log(1.02 + 0.05))
    assert class_weights("normalized_inverse", counts=COUNTS) == pytest.approx(class_weights("inverse", counts=COUNTS))


def test_absent_and_left_out_classes_weigh_nothing() -> None:
    assert class_weights("inverse", counts=[10, 0, 10], left_out=[2]) == (1.0, 0.0, 0.0)
    assert class_weights("inverse", counts=[0, 0]) == (0.0, 0.0)


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(RecipeError, match="median_frequency"):
        class_weights("median", counts=COUNTS)
