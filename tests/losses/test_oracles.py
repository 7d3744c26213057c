"""The losses against other people's: MONAI, segmentation_models_pytorch, scipy; and what no loss may depend on."""

from __future__ import annotations

import monai.losses
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from segwright.losses import LOSSES, build_loss
from segwright.losses.distances import FAR_PX, edge_distances, signed_distances

VOID = 255
PER_CLASS = {"include_background": True, "softmax": True, "to_onehot_y": True, "smooth_nr": 0.0, "smooth_dr": 0.0}


def batch(num_classes: int = 4, *, n: int = 3, side: int = 12) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(n, num_classes, side, side)
    masks = torch.randint(0, num_classes, (n, side, side))
    masks[:, 0, :num_classes] = torch.arange(num_classes)
    return logits, masks


@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
def test_region_losses_are_monai_s(name: str, over: str) -> None:
    logits, masks = batch()
    if name == "tversky":
        theirs = monai.losses.TverskyLoss(**PER_CLASS, alpha=0.2, beta=0.9, batch=over == "batch")
        formula = f"tversky(alpha=0.2, beta=0.9, over={over})"
    else:
        theirs = monai.losses.DiceLoss(**PER_CLASS, jaccard=name == "jaccard", batch=over == "batch")
        formula = f"{name}(over={over})"
    ours = build_loss(formula, num_classes=4)(logits, masks)
    torch.testing.assert_close(ours, theirs(logits, masks.unsqueeze(1)))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_monai_s(gamma: float) -> None:
    logits, masks = batch()
    theirs = monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma, reduction="sum")
    ours = build_loss(f"focal(gamma={gamma})", num_classes=4)(logits, masks)
    torch.testing.assert_close(ours, theirs(logits, masks.unsqueeze(1)) / len(masks))


@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize("void", [False, True])
def test_lovasz_is_the_library_s(over: str, void: bool) -> None:
    logits, masks = batch()
    if void:
        masks[:, -3:] = VOID
    theirs = smp.losses.LovaszLoss("multiclass", per_image=over == "image", ignore_index=VOID)
    a, b = (logits.clone().requires_grad_() for _ in range(2))
    ours, wanted = build_loss(f"lovasz(over={over})", num_classes=4)(a, masks), theirs(b, masks)
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(torch.autograd.grad(ours, a)[0], torch.autograd.grad(wanted, b)[0])


def test_focal_tversky_is_its_definition() -> None:
    logits, masks = batch()
    p, y = logits.softmax(1), torch.nn.functional.one_hot(masks, 4).movedim(-1, 1)
    hit, alarm, miss = ((p * y).sum((0, 2, 3)), (p * (1 - y)).sum((0, 2, 3)), ((1 - p) * y).sum((0, 2, 3)))
    wanted = ((1 - hit / (hit + 0.3 * alarm + 0.7 * miss)) ** 0.75).mean()
    torch.testing.assert_close(build_loss("focal_tversky", num_classes=4)(logits, masks), wanted)


def test_distances_are_scipy_s() -> None:
    _, masks = batch(side=20)
    masks[0] = masks[0].clamp(max=1)
    masks[1] = 2
    found = signed_distances(masks, num_classes=4)
    for n, k in np.ndindex(3, 4):
        inside = masks[n].numpy() == k
        if inside.all():
            wanted = np.zeros(inside.shape)
        elif inside.any():
            wanted = np.where(
                inside, 1 - ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside)
            )
        else:
            wanted = np.zeros(inside.shape)
        np.testing.assert_allclose(found[n, k], wanted, atol=1e-4)


def test_distances_to_borders_forget_void() -> None:
    labels = torch.zeros(1, 1, 9, dtype=torch.int64)
    labels[..., 6:] = 1
    assert edge_distances(labels, num_classes=2)[0, 0].tolist() == [5, 4, 3, 2, 1, 0, 0, 1, 2]
    labels[..., 6] = 2  # counts nowhere in a batch of two classes
    assert (edge_distances(labels, num_classes=2) == FAR_PX).all()


def test_boundary_is_its_definition() -> None:
    logits, masks = batch(3)
    away = signed_distances(masks, num_classes=3)
    wanted = (logits.softmax(1) * away).mean() - (torch.nn.functional.one_hot(masks, 3).movedim(-1, 1) * away).mean()
    torch.testing.assert_close(build_loss("boundary", num_classes=3)(logits, masks), wanted)


def test_pixels_near_a_border_weigh_more() -> None:
    logits, masks = batch(2, n=1, side=32)
    masks[...] = 0
    masks[..., 16:] = 1
    right = 4.0 * torch.nn.functional.one_hot(masks, 2).movedim(-1, 1)
    near, far = right.clone(), right.clone()
    near[:, :, :, 15], far[:, :, :, 0] = right[:, [1, 0], :, 15], right[:, [1, 0], :, 0]
    loss, plain = build_loss("boundary_ce", num_classes=2), build_loss("ce", num_classes=2)
    assert plain(near, masks).item() == pytest.approx(plain(far, masks).item())
    assert loss(near, masks) > 2 * loss(far, masks)
    weights = 1 + 10 * torch.exp(-(edge_distances(masks, num_classes=2) ** 2) / 50)
    wanted = (torch.nn.functional.cross_entropy(logits, masks, reduction="none") * weights).sum() / weights.sum()
    torch.testing.assert_close(loss(logits, masks), wanted)


def test_gradient_loss_sees_blurred_outlines() -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.int64)
    masks[:, 4:12, 4:12] = 1
    sharp = 20.0 * torch.nn.functional.one_hot(masks, 2).movedim(-1, 1)
    soft = torch.nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2)
    loss = build_loss("gradient", num_classes=2)
    assert loss(sharp, masks).item() == pytest.approx(0, abs=1e-4)
    assert loss(soft, masks).item() > 0.01


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_perfect_prediction_costs_nothing(name: str) -> None:
    _, masks = batch()
    logits = 60.0 * torch.nn.functional.one_hot(masks, 4).movedim(-1, 1).float()
    assert build_loss(name, num_classes=4)(logits, masks).item() == pytest.approx(0, abs=2e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
@given(order=st.permutations(range(4)), seed=st.integers(0, 1000))
def test_the_order_of_the_classes_changes_nothing(name: str, order: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    logits, masks = batch(n=2, side=7)
    masks[:, -1] = VOID
    weights = [0.5, 1.0, 2.0, 3.0]
    place = torch.full((256,), VOID)
    place[torch.tensor(order)] = torch.arange(4)
    one = build_loss(name, num_classes=4, class_weights=weights, weighted_in="all", ignore_in_loss=[1])
    other = build_loss(
        name, num_classes=4, class_weights=[weights[k] for k in order], weighted_in="all",
        ignore_in_loss=[order.index(1)],
    )  # fmt: skip
    torch.testing.assert_close(one(logits, masks), other(logits[:, order], place[masks]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_class_weights_reach_every_loss_when_asked(name: str) -> None:
    logits, masks = batch()
    plain, weighted = (
        build_loss(name, num_classes=4, class_weights=[1.0, 1.0, 1.0, weight], weighted_in="all")(logits, masks)
        for weight in (1.0, 50.0)
    )
    assert plain.item() != pytest.approx(weighted.item(), rel=1e-3)


def test_several_heads_count_less_and_less() -> None:
    logits, masks = batch()
    loss = build_loss("ce", num_classes=4)
    small = torch.nn.functional.avg_pool2d(logits, 2)
    large = torch.nn.functional.interpolate(small, size=masks.shape[1:], mode="bilinear")
    wanted = (loss(logits, masks) + 0.5 * loss(large, masks)) / 1.5
    torch.testing.assert_close(loss([logits, small], masks), wanted)


def test_a_ramp_follows_the_budget() -> None:
    logits, masks = batch()
    loss = build_loss("ramp(0, 2)*ce", num_classes=4)
    plain = build_loss("ce", num_classes=4)(logits, masks)
    for progress in (0.0, 0.5, 1.0):
        loss.progress = progress
        torch.testing.assert_close(loss(logits, masks), 2 * progress * plain)
