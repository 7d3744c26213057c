"""What each head of a composed model is taught: labels, rules and weights of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segwright.losses.class_weights import class_weights
from segwright.models import ModelSpec, build_model
from segwright.recipe import LossRecipe, Recipe
from segwright.training.assembly import module_of
from segwright.training.budget import Budget
from segwright.training.preflight import loss_weights
from segwright.training.preparation import prepare
from segwright.types import IGNORE_INDEX, ClassSet, Head

Folder = Callable[..., Path]
Tiny = Callable[..., Recipe]

CLASSES = ClassSet(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), ignore_in_loss=(0,))
PIXELS = np.zeros((2, 256), dtype=np.int64)
PIXELS[:, :3] = [[50, 40, 10], [100, 80, 20]]


def weights(asked: object, head: Head) -> tuple[float, ...] | None:
    recipe = LossRecipe.model_validate({"class_weights": asked})
    return loss_weights(recipe, classes=CLASSES, class_pixels=PIXELS, head=head)


def test_weights_of_a_head_count_the_labels_that_it_is_taught() -> None:
    assert weights("inverse", Head("main")) == class_weights("inverse", counts=[150, 120, 30], left_out=[0])
    rare = Head("rare", labels=(0, 0, 1), num_classes=2)
    assert weights("inverse", rare) == class_weights("inverse", counts=[120, 30])
    rest = Head("rest", labels=(0, 1, IGNORE_INDEX), num_classes=2)
    assert weights("inverse", rest) == class_weights("inverse", counts=[0, 120])


def test_weights_given_one_by_one_are_those_of_the_classes() -> None:
    assert weights([1, 2, 3], Head("main")) == (1, 2, 3)
    assert weights([1, 2, 3], Head("rare", labels=(0, 0, 1), num_classes=2)) is None
    assert weights("inverse", Head("whole", whole=1, num_classes=2)) is None


@pytest.mark.parametrize("formula", ["ce", "dice"])
def test_rare_pixels_teach_a_cascade_background_though_true_background_is_ignored(
    formula: str, photos: Folder, tiny: Tiny
) -> None:
    data = photos()
    for file in sorted((data / "masks").iterdir()):
        mask = np.asarray(Image.open(file)).copy()
        mask[:4] = 2
        Image.fromarray(mask).save(file)
    small = {"name": "unet", "arguments": {"width": 4, "depth": 2}}
    arguments = {"segmenter": small, "labels": ["rare"], "background": "a", "whole": [], "width": 4, "depth": 2}
    rules = {"names": ["a", "b", "rare"], "ignore_in_loss": ["a"], "never_predict": ["a"]}
    recipe = tiny(
        data, model={"name": "cascade", "arguments": arguments}, classes=rules,
        loss={"formula": formula, "class_weights": "inverse", "heads": ["segmenter"]},
    )  # fmt: skip
    images = prepare(recipe, progress=False)
    arguments = {**arguments, "labels": [2], "background": 0}
    model = build_model(ModelSpec("cascade", 1, 3, arguments=arguments, never_predict=(0,))).train()
    module = module_of(recipe, images, model, budget=Budget(steps=1, seconds=None), say=lambda _: None)
    masks = torch.zeros(2, 16, 16, dtype=torch.long)
    masks[:, :, 8:] = 2
    answers = module.model(torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8))
    answers[1].retain_grad()
    value = module.loss(answers, masks)
    value.backward()
    assert 0 < value < 10
    assert (answers[1].grad[:, 0, :, 8:] < 0).all(), "towards background where the rare class is"
    assert (answers[1].grad[:, :, :, :8] == 0).all(), "background itself is ignored"
