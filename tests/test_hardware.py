"""Device and number format: what was asked for, or the best that is safe, or a clear refusal."""

from __future__ import annotations

import pytest
import torch

from segwright.errors import RecipeError
from segwright.hardware import autocast, choose_device, choose_precision, cpu_is_fast_with_bf16

CPU = torch.device("cpu")


def test_auto_is_a_device_that_computes() -> None:
    device = choose_device("auto")
    assert torch.ones(3, device=device).sum().item() == 3
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["toaster", "cuda:99", "cpu:7", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="device"):
        choose_device(name)


def test_precision_is_as_asked_or_fitting() -> None:
    assert choose_precision("fp32", device=CPU) == "fp32"
    assert choose_precision("bf16", device=CPU) == "bf16"
    assert choose_precision("auto", device=CPU) == ("bf16" if cpu_is_fast_with_bf16() else "fp32")
    with pytest.raises(RecipeError, match="fp16"):
        choose_precision("fp16", device=CPU)


def test_autocast_multiplies_in_that_format() -> None:
    a = torch.ones(4, 4)
    with autocast("bf16", device=CPU):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("fp32", device=CPU):
        assert (a @ a).dtype == torch.float32
