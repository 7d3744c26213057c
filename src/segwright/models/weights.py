"""Weights for an encoder, from a file or from the library that owns them; loaded in full or refused.

A file fits when at least 90 % of the encoder's tensors are found in it by name and shape; `weight_files.py` reads it
and knows the names that it may use. Files hold tensors only: safetensors, or torch files read with `weights_only=True`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants
import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from segwright.errors import WeightsError, nearest
from segwright.models.branches import branches_of
from segwright.models.library import LIBRARY, TIMM, build_encoder, build_network
from segwright.models.segmenter import ModelSpec, SegmentationModel
from segwright.models.weight_files import first_convolution, matched, miss, read_weights

ENOUGH = 0.9
"""Share of the encoder's tensors that a file must hold."""

_FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_LICENCES = {
    "mit_b": "NVIDIA Source Code License for SegFormer: research and evaluation only, no commercial use",
}
_NOT_STATED = "not stated by the source"


@dataclass(frozen=True)
class WeightsReport:
    """What was loaded.

    Attributes:
        source: the file, or the name of the weights and who owns them.
        mean, std: normalisation that the weights were trained with; None where the source does not say.
        matched: tensors of the encoder that were set.
        missing: tensors of the encoder that the source lacks.
        unexpected: tensors of the source that the encoder has not, such as a classifier.
        licence: terms of the weights, as far as stated.
    """

    source: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    matched: int
    missing: list[str]
    unexpected: list[str]
    licence: str

    def __str__(self) -> str:
        lacking = f"; it lacks {_some(self.missing)}" if self.missing else ""
        over = f"; left over: {_some(self.unexpected)}" if self.unexpected else ""
        return f"{self.matched} tensors from {self.source}{lacking}{over}"


def load_encoder_weights(model: SegmentationModel, weights: str, *, offline: bool | None = None) -> WeightsReport:
    """Set the weights of a model's encoder; its normalisation is left to the caller.

    In a model of two branches, named weights are those of every branch that has an encoder.

    Args:
        model: with an encoder.
        weights: a .safetensors or .pth file, or a name that the library knows for this encoder, such as `imagenet`.
        offline: take named weights from the local cache only; none: whether SEGWRIGHT_OFFLINE is 1.

    Raises:
        WeightsError: the model has no encoder, the weights are not there, cannot be read, or do not fit.
    """
    if model.encoder is None:
        problem = f"weights '{weights}' for model '{model.spec.name}', which has no encoder"
        raise WeightsError(problem, mend="set model.weights to none")
    if (branches := branches_of(model)) is not None:
        return _into_branches(model, branches, weights, offline=offline)
    if weights.endswith(_FILE_ENDINGS) or Path(weights).exists():
        return _from_file(model, model.encoder, Path(weights))
    known = known_weights(str(model.spec.encoder))
    if weights not in known:
        problem = f"there are no weights '{weights}' for encoder '{model.spec.encoder}'"
        mend = "give a .safetensors or .pth file"
        raise WeightsError(problem, mend=f"{nearest(weights, known)}; or {mend}" if known else mend)
    if offline is None:
        offline = os.environ.get("SEGWRIGHT_OFFLINE", "").lower() in ("1", "true", "yes")
    return _from_library(model, model.encoder, weights, offline=offline)


def _into_branches(
    model: SegmentationModel, branches: Sequence[SegmentationModel], weights: str, *, offline: bool | None
) -> WeightsReport:
    """Named weights for each branch with an encoder; what they normalise with differs, so that is measured."""
    loadable = [branch for branch in branches if branch.encoder is not None]
    if not loadable or weights.endswith(_FILE_ENDINGS):
        what = "of which no branch has an encoder" if not loadable else "which has two branches"
        problem = f"weights '{weights}' for model '{model.spec.name}', {what}"
        raise WeightsError(problem, mend="set model.weights to none, or start from two runs with model.branches")
    reports = [load_encoder_weights(branch, weights, offline=offline) for branch in loadable]
    return WeightsReport(
        source=" and ".join(report.source for report in reports),
        mean=None,
        std=None,
        matched=sum(report.matched for report in reports),
        missing=[name for report in reports for name in report.missing],
        unexpected=[name for report in reports for name in report.unexpected],
        licence="; ".join(dict.fromkeys(report.licence for report in reports)),
    )


def known_weights(encoder: str) -> tuple[str, ...]:
    """Names of the weights that the library can fetch for an encoder."""
    if encoder.startswith(TIMM):
        return ("imagenet",) if timm.models.is_model_pretrained(encoder.removeprefix(TIMM)) else ()
    return tuple(smp.encoders.encoders[encoder]["pretrained_settings"])


def _from_file(model: SegmentationModel, encoder: nn.Module, path: Path) -> WeightsReport:
    state, notes = read_weights(path)
    wanted = {name: value for name, value in encoder.state_dict().items() if not name.endswith("num_batches_tracked")}
    found, unexpected = matched(state, wanted, first=first_convolution(encoder, model.spec.in_channels))
    missing = [name for name in wanted if name not in found]
    if len(found) < ENOUGH * len(wanted):
        shown = ", ".join(miss(name, state, wanted) for name in missing[:3])
        problem = f"fits {len(found)} of {len(wanted)} tensors of encoder '{model.spec.encoder}': {shown}"
        raise WeightsError(problem, mend="give weights of this encoder, or name the encoder they are of", file=path)
    _copy(found, encoder, source=str(path))
    return WeightsReport(
        source=str(path),
        mean=_numbers(notes.get("mean"), channels=model.spec.in_channels),
        std=_numbers(notes.get("std"), channels=model.spec.in_channels),
        matched=len(found),
        missing=missing,
        unexpected=unexpected,
        licence=notes.get("licence") or notes.get("license") or notes.get("source") or _of_file(model.spec),
    )


def _copy(found: Mapping[str, Tensor], encoder: nn.Module, *, source: str) -> None:
    broken = next((name for name, value in found.items() if not value.isfinite().all()), None)
    if broken is not None:
        raise WeightsError(f"tensor '{broken}' is not finite", mend="use other weights", file=source)
    state = encoder.state_dict()
    with torch.no_grad():
        for name, value in found.items():
            state[name].copy_(value)


def _from_library(model: SegmentationModel, encoder: nn.Module, weights: str, *, offline: bool) -> WeightsReport:
    spec = model.spec
    name = str(spec.encoder)
    try:
        with _hub(offline=True):
            loaded = _own_encoder(spec, weights)
            settings = smp.encoders.get_preprocessing_params(name, pretrained=weights)
    except Exception as error:
        # The hub, timm and torch raise kinds of their own for a file that is not in the cache.
        if offline:
            problem = f"weights '{weights}' of encoder '{name}' are not in the local cache, and downloads are off"
            raise WeightsError(problem, mend=_WITHOUT_NETWORK) from error
        loaded, settings = _download(model, weights)
    # An architecture may have taken out stages that it does not read.
    wanted = encoder.state_dict()
    state = {name: value for name, value in loaded.state_dict().items() if name in wanted}
    _copy(state, encoder, source=f"{weights} of {name}")
    mean, std = (_cycled(settings[key], channels=spec.in_channels) for key in ("mean", "std"))
    full = float(settings["input_range"][-1])
    return WeightsReport(
        source=f"{weights} ({_owner(name, weights)})",
        mean=tuple(value / full for value in mean),
        std=tuple(value / full for value in std),
        matched=len(state),
        missing=[],
        unexpected=[],
        licence=_licence(name),
    )


def _own_encoder(spec: ModelSpec, weights: str) -> nn.Module:
    """The encoder as the model has it: an architecture of the library may prune or wrap it."""
    if spec.name not in LIBRARY:
        return build_encoder(spec, encoder_weights=weights)
    return build_network(spec, encoder_weights=weights)[0].get_submodule("encoder")


_WITHOUT_NETWORK = (
    "give a file as model.weights, set it to none, or run once with a network and without SEGWRIGHT_OFFLINE"
)


def _download(model: SegmentationModel, weights: str) -> tuple[nn.Module, dict[str, Any]]:
    name = str(model.spec.encoder)
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname or ""
    if not _answers(host):
        problem = f"weights '{weights}' of encoder '{name}' cannot be downloaded (no connection to {host})"
        raise WeightsError(problem, mend=_WITHOUT_NETWORK)
    try:
        with _hub(offline=False):
            encoder = _own_encoder(model.spec, weights)
            return encoder, smp.encoders.get_preprocessing_params(name, pretrained=weights)
    except Exception as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        problem = f"weights '{weights}' of encoder '{name}' cannot be downloaded ({first_line})"
        raise WeightsError(problem, mend=_WITHOUT_NETWORK) from error


def _answers(host: str) -> bool:
    """Whether a host can be reached; the hub's own client would try for half a minute. Behind a proxy it decides."""
    if getproxies():
        return True
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def _hub(*, offline: bool) -> Iterator[None]:
    """Keep the hub from the network for a while; its own switch is read when it is imported."""
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _owner(encoder: str, weights: str) -> str:
    if encoder.startswith(TIMM):
        return f"timm/{encoder.removeprefix(TIMM)}"
    settings = smp.encoders.encoders[encoder]["pretrained_settings"][weights]
    return f"{settings['repo_id']} at {settings['revision'][:7]}"


def _of_file(spec: ModelSpec) -> str:
    """A file that says nothing may still hold weights whose owner does."""
    usual = [licence for prefix, licence in _LICENCES.items() if str(spec.encoder).startswith(prefix)]
    return _NOT_STATED + (f"; the usual weights of {spec.encoder}: {usual[0]}" if usual else "")


def _some(names: Sequence[str], *, most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _licence(encoder: str) -> str:
    for prefix, licence in _LICENCES.items():
        if encoder.startswith(prefix):
            return licence
    if encoder.startswith(TIMM):
        config = timm.models.get_pretrained_cfg(encoder.removeprefix(TIMM))
        return str(getattr(config, "license", None) or _NOT_STATED)
    return _NOT_STATED


def _cycled(values: list[float], *, channels: int) -> tuple[float, ...]:
    """Normalisation for C channels, in the order in which the first convolution is adapted; the mean of all for one."""
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(float(values[channel % len(values)]) for channel in range(channels))


def _numbers(text: str | None, *, channels: int) -> tuple[float, ...] | None:
    """Numbers out of a note such as '0.485, 0.456, 0.406'."""
    found = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text or "")]
    return _cycled(found, channels=channels) if found else None


def load_matching(model: SegmentationModel, other: SegmentationModel) -> list[str]:
    """Take over every tensor of another model that has the same name and shape; a head of other classes stays fresh.

    Returns:
        Names of the tensors that were left as they are.

    Raises:
        WeightsError: less than `ENOUGH` of the tensors fit.
    """
    state, given = model.net.state_dict(), other.net.state_dict()
    fitting = {name: value for name, value in given.items() if name in state and state[name].shape == value.shape}
    if len(fitting) < ENOUGH * len(state):
        problem = f"{len(fitting)} of {len(state)} tensors of '{model.spec.name}' are in the given '{other.spec.name}'"
        raise WeightsError(problem, mend="start from a run of the same architecture")
    _copy(fitting, model.net, source=f"a '{other.spec.name}'")
    return [name for name in state if name not in fitting]
