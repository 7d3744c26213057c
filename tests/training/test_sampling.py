"""What a recipe says of sampling and mixing, in numbers: weights of images, labels of rare classes, policies."""

from __future__ import annotations

import numpy as np
import pytest

from segwright.augment.mix import MixPolicy
from segwright.data.order import Order
from segwright.errors import RecipeError
from segwright.recipe import AugmentRecipe, MixRecipe, Recipe, SamplingRecipe, make_recipe, override
from segwright.training.preflight import changed_images, draw_weights, mix_policy_of, rare_labels
from segwright.types import ClassSet

CLASSES = ClassSet(("ground", "rock", "boulder", "sky"), ((0, 0, 0),) * 4)


def pixels(rows: list[list[int]]) -> np.ndarray:
    counts = np.zeros((len(rows), 256), dtype=np.int64)
    counts[:, : len(rows[0])] = rows
    return counts


PIXELS = pixels([[990, 0, 10, 0], [1000, 0, 0, 0], [500, 500, 0, 0], [400, 600, 0, 0], [1000, 0, 0, 0]])


def test_class_uniform_draws_a_class_and_then_an_image_of_it():
    weights = draw_weights(SamplingRecipe(class_uniform=True), classes=CLASSES, class_pixels=PIXELS)
    assert weights is not None
    rng = np.random.default_rng(0)
    holds = PIXELS[:, :3] > 0  # no image shows the sky
    drawn = [rng.choice(np.flatnonzero(holds[:, k])) for k in rng.integers(0, 3, 30_000)]
    np.testing.assert_allclose(weights, np.bincount(drawn, minlength=5) / 30_000, atol=0.01)
    assert weights.sum() == pytest.approx(1.0)
    # The loader's order keeps to them.
    stream = Order(5, weights=weights, seed=0).places(0, count=5000)
    np.testing.assert_allclose(np.bincount(stream, minlength=5) / 5000, weights, atol=0.02)


def test_rare_factor_multiplies_and_classes_outside_of_the_loss_are_not_drawn():
    both = SamplingRecipe(class_uniform=True, rare_classes=("boulder",), rare_factor=3.0)
    plain = draw_weights(SamplingRecipe(class_uniform=True), classes=CLASSES, class_pixels=PIXELS)
    more = draw_weights(both, classes=CLASSES, class_pixels=PIXELS)
    np.testing.assert_allclose(more, plain * np.array([3, 1, 1, 1, 1]))
    without = ClassSet(CLASSES.names, CLASSES.colors, ignore_in_loss=(0,))
    weights = draw_weights(SamplingRecipe(class_uniform=True), classes=without, class_pixels=PIXELS)
    np.testing.assert_allclose(weights, [0.5, 0, 0.25, 0.25, 0])
    nothing = ClassSet(CLASSES.names, CLASSES.colors, ignore_in_loss=(0, 1, 2, 3))
    with pytest.raises(RecipeError, match="class_uniform"):
        draw_weights(SamplingRecipe(class_uniform=True), classes=nothing, class_pixels=PIXELS)
    assert draw_weights(SamplingRecipe(), classes=CLASSES, class_pixels=PIXELS) is None


def test_rare_factor_of_no_named_class_is_of_the_rare_ones_and_a_factor_of_one_changes_nothing():
    named, unnamed = (
        draw_weights(SamplingRecipe(rare_classes=names, rare_factor=3.0), classes=CLASSES, class_pixels=PIXELS)
        for names in (("boulder",), ())
    )
    assert named is not None
    assert unnamed is not None
    assert named.tolist() == unnamed.tolist()
    assert set(named.tolist()) == {1.0, 3.0}
    once = SamplingRecipe(rare_classes=("boulder",), crop_on_rare=0.5)
    assert draw_weights(once, classes=CLASSES, class_pixels=PIXELS) is None
    with pytest.raises(RecipeError, match="boulders"):
        draw_weights(SamplingRecipe(rare_classes=("boulders",)), classes=CLASSES, class_pixels=PIXELS)


def test_rare_classes_are_named_or_found():
    assert rare_labels(("rock", "sky"), key="k", classes=CLASSES, class_pixels=PIXELS) == (1, 3)
    assert rare_labels((), key="k", classes=CLASSES, class_pixels=PIXELS) == (2,)
    with pytest.raises(RecipeError, match=r"mix\.paste_classes"):
        rare_labels((), key="mix.paste_classes", classes=CLASSES, class_pixels=pixels([[10, 10, 0, 0]]))
    with pytest.raises(RecipeError, match="boulder"):
        rare_labels(("bolder",), key="k", classes=CLASSES, class_pixels=PIXELS)


def test_images_of_some_classes_alone_are_changed():
    classes = ClassSet(("soil", "sand", "rock"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    counts = pixels([[9, 0, 1], [9, 1, 0], [5, 5, 0]])
    asked = AugmentRecipe(only_classes=("rock", "sand"))
    assert changed_images(asked, classes=classes, class_pixels=counts).tolist() == [True, True, True]
    assert changed_images(AugmentRecipe(), classes=classes, class_pixels=counts) is None
    rocks = AugmentRecipe(only_classes=("rock",))
    assert changed_images(rocks, classes=classes, class_pixels=counts).tolist() == [True, False, False]
    with pytest.raises(RecipeError, match=r"no training image holds rock.*only_classes"):
        changed_images(rocks, classes=classes, class_pixels=counts[1:])
    with pytest.raises(RecipeError, match=r"no class 'rok'.*rock"):
        changed_images(AugmentRecipe(only_classes=("rok",)), classes=classes, class_pixels=counts)


def test_a_recipe_becomes_a_policy():
    recipe = override(Recipe(), ["mix.copy_paste=0.5", "mix.paste_onto=[ground, rock]", "mix.paste_scale=[0.8, 1]"])
    policy = mix_policy_of(recipe.mix, classes=CLASSES, class_pixels=PIXELS)
    assert policy == MixPolicy(copy_paste=0.5, paste_labels=(2,), paste_onto=(0, 1), paste_scale=(0.8, 1.0))
    assert mix_policy_of(MixRecipe(), classes=CLASSES, class_pixels=PIXELS) == MixPolicy()


@pytest.mark.parametrize(
    ("mix", "says"),
    [({"cutmix": 0.6, "classmix": 0.6}, "one of the two ways"), ({"paste_scale": [2, 1]}, "smallest and a largest")],
)
def test_recipes_that_contradict_themselves_are_refused(mix, says):
    with pytest.raises(RecipeError, match=says):
        make_recipe({"mix": mix})
