"""One tester for every row of MODELS: every part has a say in the answer, and other images have none."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segwright.bundle import load_bundle, save_bundle
from segwright.confusion import confusion_per_image
from segwright.losses import build_loss
from segwright.losses.heads import HeadsLoss
from segwright.models import MODELS, SegmentationModel, build_model
from segwright.types import ClassSet

sys.path.append(str(Path(__file__).parent.parent))
from every_model import ROWS, TINY, WIDER, WITHOUT_EFFECT, WITHOUT_GRADIENT, awake, pictures, spec_of

sys.path.pop()

SWITCHES: list[dict] = [
    {"convolution": "separable_decoder", "extra_levels": 1},
    {"convolution": "residual", "padding": "valid", "stochastic_depth": 0.2},
    {"skips": "add", "padding": "valid"},
    {"skips": "residual", "up": "bilinear"},
    {"skips": "se", "norm": "group"},
    {"skips": "attention", "padding": "valid"},
    {"skips": "none", "norm": "instance"},
    {"bottleneck": "se_dilated", "width": [6, 5, 8]},
    {"bottleneck": "aspp", "activation": "silu"},
    {"bottleneck": "aspp", "norm": "instance"},
    {"bottleneck": "ppm", "convolutions": [1, 3, 2]},
    {"bottleneck": "ppm", "padding": "valid", "convolutions": [1, 3, 2]},
]
CASES = [
    *(pytest.param(name, arguments, id=name) for name, arguments in ROWS.items()),
    *(pytest.param("unet", TINY | switches, id="-".join(map(str, switches.values()))) for switches in SWITCHES),
]
COARSE = ("encoder_decoder", "residual_autoencoder", "uformer")
"""Rows without an encoder of their own that are taught on larger images all the same."""
# Timm's own blocks are timm's to test; each is cut as a whole.
WITHIN_TIMM = re.compile(r"(^|\.)(encoder\.model|judges\.\d+)\.(?!blocks\.\d+$)[^.]+\.")


def case_of(name: str, arguments: dict) -> SegmentationModel:
    return awake(dataclasses.replace(spec_of(name), arguments=arguments))


def all_heads(model: SegmentationModel, images: Tensor) -> tuple[Tensor, ...]:
    """What every head says, nothing dropped and no statistics moved."""
    model.eval()
    model.net.training = True
    answer = model(images)
    model.eval()
    return answer if isinstance(answer, tuple) else (answer,)


def same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def loss_of(model: SegmentationModel, formula: str, *, classes: int) -> nn.Module:
    """The loss that a training gives a model of these heads."""
    if not model.heads:
        return build_loss(formula, num_classes=classes)
    losses = [build_loss(formula, num_classes=head.num_classes or classes) for head in model.heads]
    return HeadsLoss(model.heads, losses)


def zeroed(result: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor | list[Tensor] | tuple[Tensor, ...]:
    return torch.zeros_like(result) if isinstance(result, Tensor) else type(result)(map(zeroed, result))


def called_in(model: SegmentationModel, images: Tensor) -> set[str]:
    """Names of the parts that are called, and not only hold others."""
    called: set[str] = set()
    hooks = [
        part.register_forward_hook(lambda module, given, result, name=name: called.add(name))
        for name, part in model.net.named_modules()
    ]
    all_heads(model, images)
    for hook in hooks:
        hook.remove()
    return called


def parts_of(model: SegmentationModel, images: Tensor) -> dict[str, nn.Module]:
    """What can be cut: all but what only holds parts that are called one by one."""
    called = called_in(model, images)
    return {
        name: part
        for name, part in model.net.named_modules()
        if name and not isinstance(part, nn.ModuleList) and not WITHIN_TIMM.search(name)
        and (name in called or not any(other.startswith(f"{name}.") for other in called))
    }  # fmt: skip


def without_effect(model: SegmentationModel, images: Tensor, *, among: Collection[str] | None = None) -> list[str]:
    """Parts whose output can be zeroed without a change in the answer of any head."""
    with torch.inference_mode():
        whole = all_heads(model, images)
        idle = []
        for name, part in parts_of(model, images).items():
            if among is not None and name not in among:
                continue
            cut = part.register_forward_hook(lambda module, given, result: zeroed(result))
            changed = not same(all_heads(model, images), whole)
            cut.remove()
            idle += [] if changed else [name]
    return idle


def require_listed(found: list[str], listed: dict[str, str]) -> None:
    """All that was found is listed, and all that is listed was found."""
    assert not [name for name in found if not name.startswith((*listed,))]
    assert not [begin for begin in listed if not any(name.startswith(begin) for name in found)]


def test_every_row_of_the_table_goes_through() -> None:
    assert {*ROWS} == {*MODELS}
    assert {*WITHOUT_GRADIENT, *WITHOUT_EFFECT} <= {*MODELS}


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_cutting_any_part_changes_the_answer(name: str, arguments: dict) -> None:
    listed = WITHOUT_EFFECT.get(name, {})
    idle = without_effect(case_of(name, arguments), pictures(1, height=33, width=39))
    for _ in range(3):
        if all(part.startswith((*listed,)) for part in idle):
            break
        # A ReLU may be shut in all of its few channels; in a part that is not wired in, it is so with any weights.
        idle = without_effect(case_of(name, arguments), pictures(1, height=33, width=39), among=idle)
    require_listed(idle, listed)


def test_a_part_that_does_nothing_is_found() -> None:
    model = case_of("unet", TINY)
    model.net.add_module("left_over", nn.Identity())
    assert without_effect(model, pictures(1, height=33, width=39)) == ["left_over"]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_every_parameter_learns_in_either_precision(name: str, arguments: dict) -> None:
    model = case_of(name, arguments).train()
    loss = loss_of(model, "ce + dice", classes=5)
    masks = torch.randint(0, 5, (2, 33, 39))
    for narrow in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            value = loss(model(pictures(height=33, width=39), masks), masks)
        value.backward()
        assert value.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        # With timm's encoders PSPNet has no stages to spare.
        require_listed(without_gradient(model), {} if name == "pspnet" else WITHOUT_GRADIENT.get(name, {}))
    reached = [p.grad for p in model.parameters() if p.grad is not None]
    assert sum(bool(grad.any()) for grad in reached) > 0.8 * len(reached)


def without_gradient(model: SegmentationModel) -> list[str]:
    return [key for key, p in model.named_parameters() if p.grad is None]


def test_stages_that_pspnet_does_not_read_have_no_gradient() -> None:
    model = build_model(dataclasses.replace(spec_of("pspnet"), encoder="resnet18"))
    model(pictures(1, height=33, width=39)).square().mean().backward()
    require_listed(without_gradient(model), WITHOUT_GRADIENT["pspnet"])


@pytest.mark.parametrize(("channels", "classes"), [(1, 25), (3, 1), (7, 2)])
@pytest.mark.parametrize("name", ROWS)
def test_any_channels_classes_and_size(name: str, channels: int, classes: int) -> None:
    # Of one class none can be rare.
    classes = max(2, classes) if name in ("two_step", "cascade") else classes
    model = build_model(spec_of(name, channels=channels, classes=classes)).eval()
    with torch.inference_mode():
        logits = model(pictures(1, channels))
    assert logits.shape == (1, classes, 97, 131)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_an_image_is_answered_alike_alone_and_among_others(name: str, arguments: dict) -> None:
    model = case_of(name, arguments).eval()
    images = pictures(8, height=33, width=39)
    with torch.inference_mode():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    # Sums of other batch sizes are taken in another order.
    assert (together - alone).abs().max() <= 1e-4 * alone.abs().max()


@pytest.mark.parametrize("name", ROWS)
def test_a_bundle_answers_as_the_model_did(name: str, tmp_path: Path) -> None:
    model = awake(spec_of(name, classes=2))
    model.train()(pictures(height=33, width=39))
    model.eval()
    images = pictures(1, height=33, width=39)
    classes = ClassSet(names=("a", "b"), colors=((0, 0, 0), (255, 255, 255)))
    save_bundle(tmp_path / "b", model, classes=classes, info={})
    with torch.inference_mode():
        assert torch.equal(load_bundle(tmp_path / "b").model(images), model(images))


@pytest.mark.parametrize("name", ROWS)
def test_four_images_are_learnt_by_heart(name: str) -> None:
    """To over 0.95 mIoU, with a tiny network, by its main head and with all heads in the loss."""
    model = build_model(spec_of(name, channels=1, classes=3, **WIDER.get(name, {})))
    images, masks = blocks() if MODELS[name].takes_encoder or name in COARSE else blots()
    loss = loss_of(model, "ce + jaccard", classes=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2 if name == "cascade" else 1e-2)
    reached = 0.0
    for step in range(1, 81):
        optimizer.zero_grad()
        loss(model.train()(images, masks), masks).backward()
        optimizer.step()
        if step % 10 == 0 and (reached := miou(model, images, masks)) > 0.95:
            break
    assert reached > 0.95


def miou(model: SegmentationModel, images: Tensor, masks: Tensor) -> float:
    with torch.inference_mode():
        pred = model.eval()(images).argmax(1)
    counts = confusion_per_image(pred, masks, num_classes=3).sum(0).double()
    return float((counts.diag() / (counts.sum(0) + counts.sum(1) - counts.diag())).mean())


def blots() -> tuple[Tensor, Tensor]:
    """Four images of bright and dark rectangles on gray, with noise, and their masks."""
    masks = torch.zeros(4, 32, 32, dtype=torch.int64)
    for k in range(4):
        masks[k, 3 + k : 15 + 2 * k, 4 : 14 + k] = 1
        masks[k, 18 - k : 29, 17 : 27 + k] = 2
    return pictured(masks), masks


def pictured(masks: Tensor) -> Tensor:
    levels = torch.tensor([120, 200, 40])
    return (levels[masks] + torch.randint(-20, 21, masks.shape)).to(torch.uint8)[:, None]


def blocks() -> tuple[Tensor, Tensor]:
    """The same on a grid of 8 pixels, which networks that answer at an eighth of the size can draw."""
    masks = torch.zeros(4, 64, 64, dtype=torch.int64)
    for k in range(4):
        masks[k, 8 : 32 + 8 * (k // 2), 8 : 24 + 8 * k] = 1
        masks[k, 48 - 8 * (k % 2) :, 8 * k : 32 + 8 * k] = 2
    return pictured(masks), masks
