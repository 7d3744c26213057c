"""What a model costs: counted as known, measured where it fits, named where it fails."""

from __future__ import annotations

import pytest
import torch

from segwright.models import ModelSpec, SegmentationModel, build_model, measure

CPU = torch.device("cpu")
TINY = ModelSpec("unet", 3, 5, arguments={"depth": 2, "width": 4})
UNET = {"name": "unet", "arguments": dict(TINY.arguments)}


def measured(spec: ModelSpec = TINY, *, batch: int = 2, build: object = build_model) -> measure.Measurement:
    return measure.measure(spec, build=build, size_px=(32, 48), batch=batch, device=CPU, precision="fp32")


def test_operations_are_those_of_the_convolutions() -> None:
    model = build_model(ModelSpec("unet", 3, 5, arguments={"depth": 1, "width": 4}))
    gflops, kept = measure.count(model, size_px=(32, 48))
    products = 9 * 3 * 4 + 9 * 4 * 4 + 4 * 5
    assert gflops * 1e9 == 2 * 32 * 48 * products
    assert kept > 32 * 48 * 4 * (3 + 4 + 4 + 4)


def test_a_small_model_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS_A_TIMING", 0.01)
    one = measured()
    assert one.parameters == sum(parameter.numel() for parameter in build_model(TINY).parameters())
    assert one.batch == 2
    assert one.forward_per_second is not None
    assert one.training_per_second is not None
    assert one.forward_per_second > one.training_per_second > 0
    assert one.note == ""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("two_step", {**measure.USUAL_ARGUMENTS["two_step"], "rare": UNET, "rest": UNET}),
        ("cascade", {"segmenter": UNET, "whole": [0], "judge": "test_resnet", "width": 4, "depth": 2}),
    ],
)
def test_models_with_heads_of_other_labels_are_measured(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: dict
) -> None:
    monkeypatch.setattr(measure, "SECONDS_A_TIMING", 0.01)
    one = measured(ModelSpec(name, 3, 5, arguments=arguments))
    assert one.note == ""
    assert one.training_per_second is not None


def room_for(images: float) -> int:
    """Memory in which a step of so many images fits."""
    model = build_model(TINY)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return int((images * measure.count(model, size_px=(32, 48))[1] + 16 * parameters) / measure.MEMORY_SHARE)


@pytest.mark.parametrize(
    ("name", "value", "batch", "said"),
    [
        ("MOST_TFLOP", 1e-9, 1, "batch 1: 2 images are"),
        ("available_memory_bytes", lambda: room_for(1.5), 1, "batch 1: a step of 2 images keeps"),
        ("available_memory_bytes", lambda: 10_000, None, "counted only: a step of one image"),
    ],
)
def test_what_does_not_fit_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, batch: int | None, said: str
) -> None:
    monkeypatch.setattr(measure, "SECONDS_A_TIMING", 0.01)
    monkeypatch.setattr(measure, name, value)
    one = measured()
    assert one.batch == batch
    assert one.note.startswith(said)
    assert one.gflops is not None


def test_a_model_that_fails_is_named_with_its_error() -> None:
    unknown = measured(ModelSpec("unet", 3, 5, arguments={"depth": 99}))
    assert unknown.note.startswith("failed: unet: depth 99")

    def broken(spec: ModelSpec) -> SegmentationModel:
        raise ZeroDivisionError("by nothing")

    assert measured(build=broken).note == "failed: ZeroDivisionError: by nothing"


def test_a_batch_that_runs_out_of_memory_is_measured_on_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = measure._timed

    def short(model: SegmentationModel, *, batch: int, **rest: object) -> object:
        if batch > 1:
            raise MemoryError
        return timed(model, batch=batch, **rest)

    monkeypatch.setattr(measure, "SECONDS_A_TIMING", 0.01)
    monkeypatch.setattr(measure, "_timed", short)
    one = measured()
    assert (one.batch, one.note) == (1, "batch 1: the memory was not enough for 2 images")
