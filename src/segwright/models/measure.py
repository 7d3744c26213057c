"""What a model costs here: parameters, operations, images a second, memory.

Parameters, operations (multiply-adds counted as two; torch's `FlopCounterMode`) and the tensors that a training step
keeps are counted on torch's meta device, which computes shapes but no numbers. So a model that the memory is too small
for, or that would take minutes, is told before it is tried: it is measured on one image, or counted only.

Times are the median of repeated calls at a fixed size and batch, after one that is not counted: a forward pass as in
prediction, and a training step (forward, cross-entropy, backward, AdamW). A call of seconds is not repeated. Memory is
the most that the process (Linux) or the GPU held during the training step beyond what it held before; elsewhere it is
not told.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from segwright.errors import SegwrightError
from segwright.hardware import (
    Precision,
    autocast,
    available_memory_bytes,
    give_back_freed_memory,
    is_out_of_memory,
)
from segwright.models.segmenter import ModelSpec, SegmentationModel
from segwright.types import Head

SECONDS_A_TIMING = 1.0
MOST_CALLS = 10
MOST_TFLOP = 1.0
"""Of a batch's forward pass on a CPU; what needs more is measured on one image."""
LONG_SECONDS = 5.0
"""A call that takes this long is not repeated."""
MEMORY_SHARE = 0.8
_BYTES_A_PARAMETER = 16
"""The parameter, its gradient and two numbers of AdamW."""


USUAL_ENCODERS: dict[str, tuple[str | None, ...]] = {
    "baseline_decoder": ("resnet34",),
    "smp_unet": ("resnet18", "resnet34"),
    "deeplabv3plus": ("resnet18", "resnet50", "resnet152", "tu-xception41"),
    "segformer": ("mit_b0",),
    "segformer_convolution": ("mit_b0",),
    "transunet": (None, "resnet50"),
    "dpt": ("tu-vit_tiny_patch16_224",),
}
"""What is measured where no encoder is named; of other models with one, resnet18."""


USUAL_ARGUMENTS: dict[str, dict[str, Any]] = {"two_step": {"labels": [0]}}
"""What a model is told that cannot do without."""


@dataclass(frozen=True)
class Measurement:
    """What a model costs; None for what could not be told.

    Attributes:
        name: of the model.
        encoder: of the model.
        parameters: all of them.
        gflops: of a forward pass of one image.
        batch: images that were measured together.
        forward_per_second: images a second, as in prediction.
        training_per_second: images a second, in training.
        memory_mib: most memory of a training step.
        note: why a figure is missing or the batch is smaller; the error of a model that failed.
    """

    name: str
    encoder: str | None
    parameters: int | None = None
    gflops: float | None = None
    batch: int | None = None
    forward_per_second: float | None = None
    training_per_second: float | None = None
    memory_mib: float | None = None
    note: str = ""


def measure(
    spec: ModelSpec, *, build: Callable[[ModelSpec], SegmentationModel], size_px: tuple[int, int], batch: int,
    device: torch.device, precision: Precision,
) -> Measurement:  # fmt: skip
    """Build a model and see what it costs; one that fails is an answer with the error in its note.

    Args:
        spec: of the model.
        build: makes it.
        size_px: rows and columns.
        batch: images at once; one, where the memory or the patience is not enough.
        device: to measure on.
        precision: to compute in.
    """
    parameters = gflops = None
    too_large = False
    try:
        model = build(spec)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        gflops, kept = count(model, size_px=size_px)
        fitting, note = _fitting(batch, gflops=gflops, kept=kept, parameters=parameters, device=device)
        if fitting == 0:
            return Measurement(spec.name, spec.encoder, parameters, gflops, note=note)
        times = _timed(model.to(device), size_px=size_px, batch=fitting, precision=precision)
        return Measurement(spec.name, spec.encoder, parameters, gflops, fitting, *times, note)
    except SegwrightError as error:
        note = error.problem
    except Exception as error:  # noqa: BLE001  # the table must name a model that does not work, not end with it
        too_large = isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error) and batch > 1
        note = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    if too_large:
        # Not inside `except`: the error would hold what the step has left in memory.
        gc.collect()
        give_back_freed_memory()
        alone = measure(spec, build=build, size_px=size_px, batch=1, device=device, precision=precision)
        why = f"batch 1: the memory was not enough for {batch} images"
        return alone if alone.note else dataclasses.replace(alone, note=why)
    return Measurement(spec.name, spec.encoder, parameters, gflops, note=f"failed: {note}")


def count(model: SegmentationModel, *, size_px: tuple[int, int]) -> tuple[float, int]:
    """GFLOPs of a forward pass of one image, and the bytes that its training step keeps for the backward pass.

    Args:
        model: on the CPU; it is copied.
        size_px: rows and columns.
    """
    shadow = copy.deepcopy(model).to("meta")
    images = torch.empty(1, model.spec.in_channels, *size_px, dtype=torch.uint8, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow.eval()(images)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    pairs = 2
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = shadow.train()(images.expand(pairs, -1, -1, -1))
    del answer
    return counter.get_total_flops() / 1e9, sum(kept.values()) // pairs


def _fitting(batch: int, *, gflops: float, kept: int, parameters: int, device: torch.device) -> tuple[int, str]:
    """How many images to measure at once (0 for none), and why fewer than asked."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory_bytes()
    room = MEMORY_SHARE * free - _BYTES_A_PARAMETER * parameters
    if kept > room:
        return 0, f"counted only: a step of one image keeps {kept / 2**30:.1f} GiB"
    if batch * kept > room:
        return 1, f"batch 1: a step of {batch} images keeps {batch * kept / 2**30:.1f} GiB"
    if device.type != "cuda" and batch > 1 and batch * gflops > 1000 * MOST_TFLOP:
        return 1, f"batch 1: {batch} images are {batch * gflops / 1000:.1f} TFLOP"
    return batch, ""


def _timed(
    model: SegmentationModel, *, size_px: tuple[int, int], batch: int, precision: Precision
) -> tuple[float, float, float | None]:
    """Images a second forward and in training, and the memory of a step in MiB."""
    device = model.gain.device
    model = model.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (batch, model.spec.in_channels, *size_px), dtype=torch.uint8, device=device)
    masks = torch.randint(0, model.spec.num_classes, (batch, *size_px), device=device)
    labels = [_labels(head, masks) for head in model.heads]

    def forward() -> None:
        with torch.inference_mode(), autocast(precision, device=device):
            model(images)

    model.eval()
    forward_seconds = _median_seconds(forward, device=device)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-6, fused=device.type in ("cpu", "cuda"))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device=device):
            answer = model(images, masks)
        heads = answer if isinstance(answer, tuple) else (answer,)
        taught = zip(heads, labels or [masks] * len(heads), strict=True)
        torch.autograd.backward([F.cross_entropy(head.float(), wanted) for head, wanted in taught])
        optimizer.step()

    model.train()
    peak = _Peak(device)
    step_seconds = _median_seconds(step, device=device)
    return batch / forward_seconds, batch / step_seconds, peak.mib()


def _labels(head: Head, masks: Tensor) -> Tensor:
    """Labels that a head could be taught, be it of other classes or of whole images; any cost the same."""
    if head.whole is not None:
        return masks[:, :1, :1] % 2
    return masks % head.num_classes if head.num_classes else masks


def _median_seconds(call: Callable[[], None], *, device: torch.device) -> float:
    taken: list[float] = []
    for number in range(MOST_CALLS + 1):
        begun = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begun
        if number or seconds > LONG_SECONDS:
            taken.append(seconds)
        if sum(taken) > SECONDS_A_TIMING:
            break
    return statistics.median(taken)


class _Peak:
    """The most memory that is held from now on, beyond what is held now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        give_back_freed_memory()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            return
        try:
            # Resets the peak of the resident memory: https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self._before = -1
            return
        self._before = _resident_kib("VmRSS")

    def mib(self) -> float | None:
        """In MiB; None where the system does not tell."""
        if self._device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self._device) - self._before) / 2**20
        if self._device.type != "cpu" or self._before < 0:
            return None
        return max(0, _resident_kib("VmHWM") - self._before) / 1024


def _resident_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
