from __future__ import annotations

import pytest
import torch

from segwright.errors import RecipeError
from segwright.models import ModelSpec, SegmentationModel, build_model, freeze_encoder


def model_of(name: str = "swiftnet", *, encoder: str | None = "resnet18") -> SegmentationModel:
    return build_model(ModelSpec(name=name, in_channels=3, num_classes=2, encoder=encoder)).train()


def learning(model: SegmentationModel) -> set[str]:
    assert model.encoder is not None
    return {name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad}


def test_a_whole_encoder_is_frozen_and_the_rest_learns() -> None:
    model = model_of()
    freeze_encoder(model)
    assert learning(model) == set()
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_depth_freezes_what_that_feature_is_computed_from() -> None:
    model = model_of()
    freeze_encoder(model, depth=2)
    left = learning(model)
    assert not any(name.startswith(("conv1", "bn1", "layer1")) for name in left)
    assert {name.split(".")[0] for name in left} == {"layer2", "layer3", "layer4"}


def test_frozen_statistics_do_not_move_and_the_others_do() -> None:
    model = model_of()
    freeze_encoder(model, depth=2)
    before = {name: value.clone() for name, value in model.state_dict().items() if "running_mean" in name}
    model.train()
    model(torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8))
    moved = {name for name, value in before.items() if not torch.equal(value, model.state_dict()[name])}
    assert not any("layer1" in name or "encoder.bn1" in name for name in moved)
    assert any("layer2" in name for name in moved)


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(RecipeError, match="no encoder"):
        freeze_encoder(model_of("unet", encoder=None))
    with pytest.raises(RecipeError, match="depth 7"):
        freeze_encoder(model_of(), depth=7)
