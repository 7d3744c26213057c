"""The quick way to overlap and mass says what the general way says, in either order of memory, once and again."""

from __future__ import annotations

import pytest
import torch

from segwright.losses.counts import Wanted, labels_of, soft_counts
from segwright.losses.region_counts import region_counts


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_both_ways_agree(channels_last: bool, classes: int, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, classes, 7, 9, generator=rng).to(dtype)
    logits = logits.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    masks = torch.randint(0, classes, (3, 7, 9), generator=rng)
    masks[0, :3] = 255
    labels = labels_of(masks, logits, kept=torch.ones(classes, dtype=torch.bool))
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    weights = torch.randn(2, 3, classes, generator=rng).to(exact)
    quick, slow = (logits.clone().requires_grad_() for _ in range(2))
    overlap, mass = region_counts(quick, labels)
    (overlap * weights[0] + mass * weights[1]).sum().backward()
    general = soft_counts(slow, labels, wanted=Wanted(region=True))
    (general.overlap * weights[0] + general.mass * weights[1]).sum().backward()
    torch.testing.assert_close(overlap, general.overlap)
    torch.testing.assert_close(mass, general.mass)
    torch.testing.assert_close(quick.grad, slow.grad)
    assert quick.grad is not None
    assert quick.grad.stride() == logits.stride()


def test_a_second_backward_pass_gives_the_same_gradient() -> None:
    logits = torch.randn(2, 4, 6, 5, requires_grad=True)
    labels = torch.randint(0, 5, (2, 6, 5))
    total = sum(part.square().sum() for part in region_counts(logits, labels))
    assert isinstance(total, torch.Tensor)
    first, second = (torch.autograd.grad(total, logits, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
