from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segwright.errors import TrainingError
from segwright.hardware import is_out_of_memory
from segwright.losses import build_loss
from segwright.models import ModelSpec, SegmentationModel, build_model
from segwright.recipe import Recipe
from segwright.training.memory import in_pieces
from segwright.training.run import train

Tiny = Callable[..., Recipe]
Folder = Callable[..., Path]

CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = {"cpu": RuntimeError(CPU_WORDS), "host": MemoryError(), "gpu": torch.OutOfMemoryError("CUDA out of memory.")}


def network(norm: str) -> SegmentationModel:
    spec = ModelSpec(
        name="unet", in_channels=1, num_classes=3, arguments={"width": 4, "depth": 2, "norm": norm}, mean=(0.5,)
    )
    return build_model(spec).train()


def batch(images: int) -> tuple[Tensor, Tensor]:
    masks = torch.randint(0, 3, (images, 32, 32))
    masks[: images // 2, :20] = 255
    return torch.randint(0, 255, (images, 1, 32, 32), dtype=torch.uint8), masks


@pytest.mark.parametrize("at_once", [1, 2, 4, 5])
def test_a_step_in_pieces_has_the_gradient_of_the_whole_batch(at_once: int) -> None:
    whole, parted, loss = network("none"), network("none"), build_loss("dice + ce", num_classes=3)
    parted.load_state_dict(whole.state_dict())
    images, masks = batch(5)
    losses = [
        loss(in_pieces(model, images, at_once=number), masks) for model, number in ((whole, None), (parted, at_once))
    ]
    for value in losses:
        value.backward()
    torch.testing.assert_close(losses[1], losses[0])
    for one, other in zip(parted.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_running_statistics_move_once_a_piece() -> None:
    parted = network("batch")
    plain = copy.deepcopy(parted)
    images, _ = batch(4)
    in_pieces(parted, images, at_once=2).sum().backward()
    for piece in images.split(2):
        plain(piece)
    for (name, one), other in zip(parted.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_pieces_do_not_change_what_is_only_evaluated() -> None:
    model = network("batch").eval()
    images, _ = batch(5)
    with torch.no_grad():
        torch.testing.assert_close(in_pieces(model, images, at_once=2), model(images))


def short_of_memory(monkeypatch: pytest.MonkeyPatch, *, images: int, error: Exception, backward: bool = False) -> None:
    """Let the forward (or the backward) pass of more than so many images fail as torch does it."""
    original = SegmentationModel.forward

    def fail(*_: object) -> None:
        raise error

    def forward(self: SegmentationModel, batch: Tensor) -> Tensor:
        if len(batch) <= images:
            return original(self, batch)
        logits = original(self, batch)
        if not backward or not logits.requires_grad:
            fail()
        logits.register_hook(fail)
        return logits

    monkeypatch.setattr(SegmentationModel, "forward", forward)


@pytest.mark.parametrize(("words", "backward"), [("cpu", True), ("host", False)])
def test_a_run_short_of_memory_goes_on_to_the_same_weights(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, backward: bool
) -> None:
    recipe = tiny(photos(), epochs=1, model={"arguments": {"width": 4, "depth": 2, "norm": "none"}})
    whole = train(recipe, run=tmp_path / "whole", progress=False)
    short_of_memory(monkeypatch, images=1, error=ERRORS[words], backward=backward)
    parted = train(recipe, run=tmp_path / "parted", progress=False)
    log = (parted / "log.txt").read_text()
    assert log.count("out of memory with 4 images at once: training goes on with 2") == 1
    assert log.count("out of memory with 2 images at once: training goes on with 1") == 1
    states = [torch.load(run / "resume.ckpt", weights_only=True) for run in (whole, parted)]
    for name, value in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], value, msg=name, rtol=1e-3, atol=1e-5)
    assert states[1]["at_once"]["training"] == 1
    # A resumed run does not try the whole batch again.
    train(recipe, run=parted, resume=True, changes=["training.epochs=2"], progress=False)
    log = (parted / "log.txt").read_text()
    assert log.count("out of memory with 4 images at once: training") == 1
    assert "training goes on with 1 images at once, as before" in log


def test_one_image_that_does_not_fit_ends_the_run(
    photos: Folder, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(photos())
    original = nn.Module.__call__

    def call(self: nn.Module, *arguments: object) -> object:
        if isinstance(self, SegmentationModel) and self.training:
            raise RuntimeError(CPU_WORDS)
        return original(self, *arguments)

    monkeypatch.setattr(SegmentationModel, "__call__", call, raising=False)
    with pytest.raises(TrainingError, match=r"not enough for one image.*crop_px"):
        train(recipe, run=tmp_path / "run", progress=False)


def test_other_faults_are_not_taken_for_a_lack_of_memory() -> None:
    assert all(is_out_of_memory(error) for error in ERRORS.values())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
