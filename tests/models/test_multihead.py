"""Ways up side by side: what each sees, and how their heads are fused."""

from __future__ import annotations

import pytest
import torch

from segwright.errors import RecipeError
from segwright.models import ModelSpec, SegmentationModel, build_model


def small(**values: object) -> SegmentationModel:
    arguments = {"depth": 4, "width": 4, "norm": "none", "activation": "silu", **values}
    return build_model(ModelSpec("multihead", 1, 3, arguments=arguments, scale=1.0))


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_the_answer_is_the_mean_of_the_heads_probabilities(up: str) -> None:
    model = small(up=up).train()
    images = torch.rand(2, 1, 16, 24)
    fused, *heads = model(images)
    assert len(heads) == 3
    mean = torch.stack([head.softmax(1) for head in heads]).mean(0)
    torch.testing.assert_close(fused.softmax(1), mean)
    torch.testing.assert_close(model.eval()(images), fused)


def test_deeper_heads_see_farther() -> None:
    model = small().train()
    image = torch.zeros(1, 1, 96, 96)
    spot = image.clone()
    spot[..., 48, 48] = 1.0
    with torch.no_grad():
        _, *heads = (other - one for one, other in zip(model(image), model(spot), strict=True))
    reach = [int((head.abs().sum((0, 1)) > 0).any(0).sum()) for head in heads]
    assert reach == sorted(reach, reverse=True)
    assert len(set(reach)) == 3


def test_classes_that_are_never_predicted_are_so_by_every_head() -> None:
    spec = ModelSpec("multihead", 1, 3, arguments={"depth": 3, "width": 4}, never_predict=(1,))
    heads = build_model(spec).train()(torch.zeros(2, 1, 20, 20, dtype=torch.uint8))
    assert torch.stack(heads).softmax(2)[:, :, 1].max() == 0
    torch.stack(heads).softmax(2).square().mean().backward()


@pytest.mark.parametrize(("arguments", "message"), [({"depth": 1}, "depth 1"), ({"up": "nearest"}, "up 'nearest'")])
def test_values_that_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        small(**arguments)
