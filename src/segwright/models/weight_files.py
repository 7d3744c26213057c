"""Files of weights: read without running foreign code, and matched to an encoder by name and shape.

Names may carry the prefixes that training frameworks put before them (`module.`, `model.encoder.` and the like; DINO's
`teacher.backbone.`, MoCo's `encoder_q.`). SegFormer's encoders as Hugging Face saves them
(https://huggingface.co/nvidia/mit-b0) are read too: their names differ, and keys and values stand apart.

A first convolution that was trained for C0 channels is adapted to C as segmentation_models_pytorch does it: summed over
channels for C = 1; else the channels are repeated in turn and scaled by C0 / C, so that activations keep their size.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from segwright.errors import WeightsError

_PREFIXES = (
    "module.", "model.", "net.", "encoder.", "backbone.", "segformer.", "teacher.", "student.", "encoder_q.",
    "base_encoder.",
)  # fmt: skip
_WRAPPERS = ("state_dict", "model_state_dict", "model", "encoder", "teacher")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and notes of a weights file."""
    if not path.is_file():
        raise WeightsError("is missing", mend="check model.weights: a file, 'imagenet', 'auto' or 'none'", file=path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as reader:
                names = reader.keys()
                state = {name: reader.get_tensor(name) for name in names}
                return _as_in_the_paper(state), dict(reader.metadata() or {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle protocol of a file that is then refused
            tree: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        problem = "holds more than tensors, so reading it could run foreign code"
        raise WeightsError(problem, mend="save its state_dict, best as .safetensors", file=path) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"cannot be read ({error})", mend="copy or download it again", file=path) from error
    state = _as_in_the_paper(_tensors(tree))
    if not state:
        raise WeightsError("holds no tensors by name", mend="save a state_dict", file=path)
    return state, {}


def _tensors(tree: Any) -> dict[str, Tensor]:
    """The tensors by name of a checkpoint, which often stand a level or two down."""
    if not isinstance(tree, dict):
        return {}
    for key in _WRAPPERS:
        if isinstance(tree.get(key), dict):
            return _tensors(tree[key])
    return {str(name): value for name, value in tree.items() if isinstance(value, Tensor)}


def matched(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, first: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The best of all readings of the file's names: tensors by the encoder's names, and names left over."""
    best: dict[str, Tensor] = {}
    taken: set[str] = set()
    # Encoders of timm stand in the library below 'model.', in files of timm they do not.
    for strip, add in itertools.product(_prefixes(state), ("", "model.")):
        names = {add + name.removeprefix(strip): name for name in state if name.startswith(strip)}
        found = {}
        for name, value in wanted.items():
            if name in names and (fitted := _fitted(state[names[name]], value, adaptable=name == first)) is not None:
                found[name] = fitted
        if len(found) > len(best):
            best, taken = found, {names[name] for name in found}
    return best, [name for name in state if name not in taken and not name.endswith("num_batches_tracked")]


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Every chain of known prefixes that some name starts with, such as '', 'module.' and 'module.encoder.'."""
    pattern = re.compile("(?:" + "|".join(map(re.escape, _PREFIXES)) + ")*")
    chains = {match.group() for name in state if (match := pattern.match(name))}
    parts = {tuple(re.findall(r"[^.]+\.", chain)) for chain in chains}
    return sorted({"".join(chain[:length]) for chain in parts for length in range(len(chain) + 1)}, key=len)


def _fitted(value: Tensor, wanted: Tensor, *, adaptable: bool) -> Tensor | None:
    if value.shape == wanted.shape:
        return value
    same_but_channels = value.ndim == 4 and value.shape[0] == wanted.shape[0] and value.shape[2:] == wanted.shape[2:]
    if adaptable and same_but_channels:
        return adapt_first_convolution(value, in_channels=wanted.shape[1])
    return None


def first_convolution(encoder: nn.Module, in_channels: int) -> str | None:
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == in_channels:
            return f"{name}.weight"
    return None


def miss(name: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    other = next((value for key, value in state.items() if key == name or key.endswith("." + name)), None)
    if other is None:
        return f"'{name}' is not there"
    return f"'{name}' has shape {tuple(other.shape)} for {tuple(wanted[name].shape)}"


def adapt_first_convolution(weight: Tensor, *, in_channels: int) -> Tensor:
    """A (O, C0, h, w) kernel for C channels; see the file's head.

    >>> adapt_first_convolution(torch.ones(1, 3, 1, 1), in_channels=1).item()
    3.0
    """
    trained = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(in_channels) % trained] * (trained / in_channels)


_HUGGING_FACE = (
    (r"patch_embeddings\.(\d+)\.proj\.", "patch_embed{}.proj."),
    (r"patch_embeddings\.(\d+)\.layer_norm\.", "patch_embed{}.norm."),
    (r"block\.(\d+)\.(\d+)\.layer_norm_([12])\.", "block{}.{}.norm{}."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.query\.", "block{}.{}.attn.q."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.key\.", "block{}.{}.attn.kv."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.sr\.", "block{}.{}.attn.sr."),
    (r"block\.(\d+)\.(\d+)\.attention\.self\.layer_norm\.", "block{}.{}.attn.norm."),
    (r"block\.(\d+)\.(\d+)\.attention\.output\.dense\.", "block{}.{}.attn.proj."),
    (r"block\.(\d+)\.(\d+)\.mlp\.dwconv\.dwconv\.", "block{}.{}.mlp.dwconv.dwconv."),
    (r"block\.(\d+)\.(\d+)\.mlp\.dense([12])\.", "block{}.{}.mlp.fc{}."),
    (r"layer_norm\.(\d+)\.", "norm{}."),
)
"""Names of Hugging Face's SegFormer and of the paper's; the first number is that of the stage, from 0 and from 1."""


def _as_in_the_paper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SegFormer's tensors by the paper's names, keys joined with values; others as they are."""
    if not any(".attention.self.key." in name for name in state):
        return dict(state)
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        partner = name.replace(".attention.self.key.", ".attention.self.value.")
        if ".attention.self.value." in name:
            continue
        if partner != name and partner in state:
            value = torch.cat([value, state[partner]])
        renamed[_renamed(name)] = value
    return renamed


def _renamed(name: str) -> str:
    for pattern, new in _HUGGING_FACE:
        if found := re.search(r"(?:^|(?<=\.))" + pattern, name):
            stage, *rest = found.groups()
            return name[: found.start()] + new.format(int(stage) + 1, *rest) + name[found.end() :]
    return name
