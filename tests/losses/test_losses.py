"""Every row of LOSSES, alone and summed, against references, at the edges, and by its gradients."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from segwright.errors import MaskError, RecipeError
from segwright.losses import LOSSES, build_loss, counts, parse_formula

VOID = 255


def batch(
    num_classes: int = 4, *, n: int = 2, height: int = 9, width: int = 7, void: bool = True
) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(n, num_classes, height, width)
    masks = torch.randint(0, num_classes, (n, height, width))
    masks.view(-1)[:num_classes] = torch.arange(num_classes)
    if void:
        masks[:, -2:] = VOID
    return logits, masks


def value_and_gradient(loss: torch.nn.Module, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, masks)
    return value, torch.autograd.grad(value, logits)[0]


REFERENCED = ["ce", "dice", "jaccard"]


def reference(formula: str, logits: Tensor, masks: Tensor) -> Tensor:
    total = logits.new_zeros(())
    for term in parse_formula(formula):
        factor, name = term.start, term.name
        kind = {"dice": smp.losses.DiceLoss, "jaccard": smp.losses.JaccardLoss}.get(name)
        if name == "ce":
            term = F.cross_entropy(logits, masks, ignore_index=VOID)
        elif kind is smp.losses.DiceLoss:
            term = kind("multiclass", ignore_index=VOID)(logits, masks)
        else:
            # The library's Jaccard knows no void: it gets the valid pixels only, as one row.
            valid = masks != VOID
            term = kind("multiclass")(logits.movedim(1, -1)[valid].T[None, :, None], masks[valid][None, None])
        total = total + factor * term
    return total


@pytest.mark.parametrize("formula", [*REFERENCED, "dice + 2*ce", "0.5*jaccard+ce"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_value_and_gradient_are_the_references(formula: str, channels_last: bool) -> None:
    logits, masks = batch()
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    value, gradient = value_and_gradient(build_loss(formula, num_classes=4), logits, masks)
    logits.requires_grad_()
    wanted = reference(formula, logits, masks)
    torch.testing.assert_close(value, wanted.detach().requires_grad_(False), check_stride=False)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, logits)[0], check_stride=False)
    assert gradient.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


SPLITTABLE = [*(name for name in sorted(LOSSES) if name != "lovasz"), "dice + 2*ce", "dice(over=image)"]


@pytest.mark.parametrize("formula", SPLITTABLE)
def test_parts_of_a_batch_in_several_processes_have_its_loss_and_gradient(formula: str) -> None:
    logits, masks = batch(n=5)
    masks[:2] = torch.where(masks[:2] == 3, VOID, masks[:2])
    weights = [0.2, 3.0, 1.0, 0.5]
    loss = build_loss(formula, num_classes=4, class_weights=weights, label_smoothing=0.1)
    wanted, gradient = value_and_gradient(loss, logits, masks)
    seen: dict[int, list[Tensor]] = {0: [], 1: []}

    def keep(rank: int, counts: Tensor) -> Tensor:
        seen[rank].append(counts.detach())
        return counts

    parts = [slice(0, 2), slice(2, 5)]
    for rank, part in enumerate(parts):
        loss(logits[part], masks[part], total=lambda counts, rank=rank: keep(rank, counts))
    for rank, part in enumerate(parts):
        own = logits[part].detach().requires_grad_()
        others = iter(seen[1 - rank])
        value = loss(own, masks[part], total=lambda counts, others=others: counts + next(others))
        torch.testing.assert_close(value, wanted)
        torch.testing.assert_close(torch.autograd.grad(value, own)[0], gradient[part])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_and_smoothing_are_those_of_torch(smoothing: float) -> None:
    logits, masks = batch(3)
    weights = [0.2, 3.0, 1.0]
    loss = build_loss("ce", num_classes=3, class_weights=weights, label_smoothing=smoothing)
    value, gradient = value_and_gradient(loss, logits, masks)
    logits.requires_grad_()
    wanted = F.cross_entropy(logits, masks, weight=torch.tensor(weights), ignore_index=VOID, label_smoothing=smoothing)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, logits)[0])


SUMS = [
    "jaccard + ce",
    "dice(over=image) + focal(gamma=0.5) + focal(gamma=3)",
    "tversky(alpha=0.2, beta=0.9, over=image)",
]


@pytest.mark.parametrize("formula", [*sorted(LOSSES), *SUMS, "lovasz(over=image)"])
def test_gradients_by_finite_differences(formula: str) -> None:
    logits, masks = batch(3, n=2, height=4, width=3, void=False)
    masks[0, 0, 0] = VOID
    weights = [0.5, 2.0, 1.0]
    loss = build_loss(
        formula, num_classes=3, class_weights=weights, weighted_in="all", ignore_in_loss=[2], label_smoothing=0.2
    ).double()
    # `forward` answers in float32, too coarse for differences.
    assert torch.autograd.gradcheck(lambda z: loss._of(z, masks, total=None), logits.double().requires_grad_())


@pytest.mark.parametrize("formula", sorted(LOSSES))
def test_ignored_pixels_and_classes_count_nowhere(formula: str) -> None:
    logits, masks = batch(4)
    loss = build_loss(formula, num_classes=4, ignore_in_loss=[0], label_smoothing=0.1)
    value, gradient = value_and_gradient(loss, logits, masks)
    dropped = (masks == 0) | (masks == VOID)
    assert gradient.movedim(1, -1)[dropped].abs().max() == 0
    if formula not in ("boundary", "gradient"):
        assert gradient.movedim(1, -1)[~dropped].abs().min() > 0
    void = masks.where(masks != 0, VOID)
    if formula != "ce":
        assert build_loss(formula, num_classes=4)(logits, void).item() == pytest.approx(value.item(), rel=1e-6)
    loud = logits.clone()
    loud.movedim(1, -1)[dropped] = 1e4
    assert loss(loud, masks).item() == pytest.approx(value.item(), rel=1e-6)


def test_a_class_that_is_never_predicted_and_ignored_costs_nothing_under_smoothing() -> None:
    logits, masks = batch(4)
    loss = build_loss("ce + dice", num_classes=4, ignore_in_loss=[0], label_smoothing=0.1)
    blocked = logits.clone()
    blocked[:, 0] = -1e4
    value, gradient = value_and_gradient(loss, blocked, masks)
    assert value.item() < 10
    assert gradient.isfinite().all()


def test_absent_classes_leave_the_mean() -> None:
    logits, masks = batch(4)
    masks[masks == 3] = 1
    p = logits.softmax(1)
    valid = masks != VOID
    dice = []
    for label in range(3):
        truth = (masks == label) & valid
        overlap = (p[:, label] * truth).sum()
        dice.append(1 - 2 * overlap / ((p[:, label] * valid).sum() + truth.sum()))
    assert build_loss("dice", num_classes=4)(logits, masks).item() == pytest.approx(torch.stack(dice).mean().item())


@pytest.mark.parametrize("formula", sorted(LOSSES))
@pytest.mark.parametrize("num_classes", [1, 2, 25])
def test_a_batch_without_a_valid_pixel_is_zero(formula: str, num_classes: int) -> None:
    logits, masks = batch(num_classes, height=30)
    loss = build_loss(formula, num_classes=num_classes)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, VOID))
    assert value.item() == 0
    assert gradient.abs().max() == 0
    value, gradient = value_and_gradient(loss, logits, masks)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(dtype: torch.dtype) -> None:
    logits, masks = batch(5, n=4, height=64, width=64)
    logits = logits.to(dtype)
    loss = build_loss("ce + dice", num_classes=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(loss, logits, masks)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value.item() == pytest.approx(loss(logits.float(), masks).item(), rel=1e-6)


@given(rows=st.integers(1, 40), columns=st.integers(1, 9), n=st.integers(1, 5), budget=st.integers(1, 4000))
def test_the_size_of_the_pieces_changes_nothing(rows: int, columns: int, n: int, budget: int) -> None:
    logits, masks = batch(2, n=n, height=rows + 1, width=columns + 1, void=False)
    loss = build_loss("ce + jaccard", num_classes=2, label_smoothing=0.1)
    whole = value_and_gradient(loss, logits, masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "_CPU_PIECE_BYTES", budget)
        pieces = value_and_gradient(loss, logits, masks)
    torch.testing.assert_close(whole, pieces)


def test_sliced_logits_give_the_same_as_copied_ones() -> None:
    logits, masks = batch(3, height=12, width=11)
    loss = build_loss("ce + dice", num_classes=3)
    crop = loss(logits[..., 1:8, 2:9], masks[:, 1:8, 2:9])
    assert crop.item() == loss(logits[..., 1:8, 2:9].clone(), masks[:, 1:8, 2:9].clone()).item()


@pytest.mark.parametrize("label", [4, 254, -1, 300])
def test_a_label_that_is_no_class_is_named(label: int) -> None:
    logits, masks = batch(4)
    masks[0, 0, 0] = label
    with pytest.raises(MaskError, match=f"label {label} in a batch of 4 classes"):
        build_loss("ce", num_classes=4)(logits, masks)


def test_formulas() -> None:
    terms = parse_formula(" Dice+2 *ce + 1e+1*jaccard+.5*ce")
    assert [(term.start, term.name) for term in terms] == [(1, "dice"), (2, "ce"), (10, "jaccard"), (0.5, "ce")]
    assert [str(term) for term in parse_formula("dice+ce")] == ["1*dice", "1*ce"]
    told = parse_formula("tversky(alpha = 0.3,beta=.7, over=image)+ramp(0, 1e-2)*boundary()")
    assert told[0].arguments == {"alpha": 0.3, "beta": 0.7, "over": "image"}
    assert [told[1].factor(progress) for progress in (0, 0.5, 1)] == [0, 0.005, 0.01]
    logits, masks = batch()
    parts = {name: build_loss(name, num_classes=4)(logits, masks).item() for name in LOSSES}
    both = build_loss("dice + 2*ce", num_classes=4)(logits, masks).item()
    assert both == pytest.approx(parts["dice"] + 2 * parts["ce"])


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("dise", "Did you mean 'dice'"),
        ("", "cannot read ''"),
        ("dice + ", "cannot read ''"),
        ("dice - ce", "cannot read 'dice - ce'"),
        ("__import__('os')", "there is no loss '__import__'"),
        ("focal(gamma)", "cannot read 'gamma'"),
        ("focal(gama=2)", "Did you mean 'gamma'"),
        ("focal(gamma=-2)", "cannot read 'gamma=-2'"),
        ("focal(gamma=200)", "from 0 to 20"),
        ("dice(over=set)", "over=set"),
        ("ce(gamma=2)", "no argument 'gamma'"),
        ("ramp(0, 0)*ce", "factor 0"),
        ("0*ce", "factor 0"),
    ],
)
def test_formulas_that_are_refused(formula: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_loss(formula, num_classes=3)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, "2 class weights for 3 classes"),
        ({"class_weights": [1.0, -2.0, 1.0]}, "class weight -2"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "class weight 0"),
        ({"class_weights": [1.0, float("nan"), 1.0]}, "class weight nan"),
        ({"ignore_in_loss": [3]}, "label 3 of 3 classes"),
        ({"ignore_in_loss": [0, 1, 2]}, "every class is ignored"),
        ({"label_smoothing": 1.0}, r"label_smoothing 1\.0"),
    ],
)
def test_values_that_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_loss("ce", num_classes=3, **arguments)
