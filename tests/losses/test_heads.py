"""The loss of several heads: each is taught its own labels, and only those that are asked for."""

from __future__ import annotations

import pytest
import torch

from segwright.errors import RecipeError
from segwright.losses import HEAD_SHARE, build_loss
from segwright.losses.heads import HeadsLoss
from segwright.types import Head

MASKS = torch.tensor([[[0, 1, 2], [2, 1, 255]], [[1, 1, 1], [1, 1, 1]]])


def logits(classes: int, seed: int = 0, *, size: tuple[int, int] = (2, 3)) -> torch.Tensor:
    return torch.randn(2, classes, *size, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_deep_supervision_counts_each_further_head_less() -> None:
    answers = [logits(3, seed) for seed in range(3)]
    one = build_loss("dice + ce", num_classes=3)
    both = HeadsLoss([Head("main"), Head("a"), Head("b")], [one] * 3)
    shares = [HEAD_SHARE**place for place in range(3)]
    wanted = sum(s * one(a, MASKS) for s, a in zip(shares, answers, strict=True)) / sum(shares)
    torch.testing.assert_close(both(answers, MASKS), wanted)
    torch.testing.assert_close(both(answers[0], MASKS), one(answers[0], MASKS))


def test_a_head_with_labels_of_its_own_is_taught_these() -> None:
    head = Head("rare", labels=(0, 1, 255), num_classes=2)
    binary = build_loss("ce", num_classes=2)
    loss = HeadsLoss([Head("main"), head], [build_loss("ce", num_classes=3), binary], taught=["rare"])
    answer = logits(2)
    truth = torch.tensor([[[0, 1, 255], [255, 1, 255]], [[1, 1, 1], [1, 1, 1]]])
    torch.testing.assert_close(loss([logits(3), answer], MASKS), binary(answer, truth))


def test_classes_that_are_ignored_leave_such_heads_too() -> None:
    head = Head("a", labels=(0, 1, 0), num_classes=2)
    binary = build_loss("ce", num_classes=2)
    loss = HeadsLoss([Head("main"), head], [build_loss("ce", num_classes=3), binary], taught=["a"], ignored=[2])
    answer = logits(2)
    truth = torch.tensor([[[0, 1, 255], [255, 1, 255]], [[1, 1, 1], [1, 1, 1]]])
    torch.testing.assert_close(loss([logits(3), answer], MASKS), binary(answer, truth))


def test_a_judge_of_whole_images_is_taught_one_answer_an_image() -> None:
    judge = Head("whole 1", whole=1, num_classes=2)
    binary = build_loss("ce", num_classes=2)
    loss = HeadsLoss([Head("main"), judge], [build_loss("ce", num_classes=3), binary], taught=["whole 1"])
    answer = logits(2, size=(1, 1))
    torch.testing.assert_close(loss([logits(3), answer], MASKS), binary(answer, torch.tensor([[[0]], [[1]]])))
    nothing = loss([logits(3), answer], torch.full_like(MASKS, 255))
    assert nothing == 0


def test_an_image_is_all_one_class_beyond_the_share_not_at_it() -> None:
    masks = torch.zeros(2, 2, 5, dtype=torch.long)
    masks[0, 0, 0] = 1  # nine of ten pixels
    binary = build_loss("ce", num_classes=2)
    answer = logits(2, size=(1, 1))
    for share, wanted in ((0.9, [0, 1]), (0.89, [1, 1])):
        judge = Head("whole 0", whole=0, num_classes=2, whole_share=share)
        loss = HeadsLoss([Head("main"), judge], [build_loss("ce", num_classes=3), binary], taught=["whole 0"])
        truth = torch.tensor(wanted)[:, None, None]
        torch.testing.assert_close(loss([logits(3), answer], masks), binary(answer, truth))


def test_a_head_on_demand_is_taught_where_it_is_named() -> None:
    answers, one = [logits(3, seed) for seed in range(2)], build_loss("ce", num_classes=3)
    heads = [Head("main"), Head("first", on_demand=True)]
    torch.testing.assert_close(HeadsLoss(heads, [one, one])(answers, MASKS), one(answers[0], MASKS))
    torch.testing.assert_close(HeadsLoss(heads, [one, one], taught=["first"])(answers, MASKS), one(answers[1], MASKS))


def test_only_taught_heads_get_gradients_and_progress_reaches_all() -> None:
    answers = [logits(3, 1), logits(3, 2)]
    losses = [build_loss("ramp(0, 1)*ce", num_classes=3) for _ in range(2)]
    loss = HeadsLoss([Head("main"), Head("second")], losses, taught=["second"])
    loss.progress = 1.0
    loss(answers, MASKS).backward()
    assert answers[0].grad is None
    assert answers[1].grad is not None
    assert [one.progress for one in losses] == [1.0, 1.0]
    assert loss.progress == 1.0


def test_an_unknown_head_is_named() -> None:
    one = build_loss("ce", num_classes=3)
    with pytest.raises(RecipeError, match=r"no head 'secnd'.*second"):
        HeadsLoss([Head("main"), Head("second")], [one, one], taught=["secnd"])
