"""What a trained encoder sees in a picture: its two coarsest features, averaged over the picture.

Such averages tell subjects and styles apart better than pixels do, also on pictures the encoder never saw (Donahue et
al., "DeCAF", 2014, https://arxiv.org/abs/1310.1531).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open
from torch import nn

from segwright.auditing.survey import Survey
from segwright.auditing.tones import reduced
from segwright.errors import WeightsError, nearest
from segwright.models import ModelSpec, build_model, load_encoder_weights
from segwright.models.library import encoders_of

SIDE_PX = 160
"""Pictures are brought to this many rows and columns: five halvings leave 5 x 5."""

BATCH = 16

_MODEL = "fpn"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def encoder_features(survey: Survey, positions: Sequence[int], *, weights: Path) -> Float32[np.ndarray, "N D"]:
    """Features of the pictures at these positions, which are read again; each row has length 1.

    Args:
        survey: whose pictures can be read.
        positions: which.
        weights: a file that names its encoder, in its notes (`architecture`) or as the beginning of its own name.

    Raises:
        WeightsError: the file cannot be read, names no known encoder, or does not fit it.
        DataError: a picture can no longer be read.
    """
    model = build_model(ModelSpec(_MODEL, in_channels=3, num_classes=2, encoder=encoder_of(weights)))
    report = load_encoder_weights(model, str(weights))
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (report.mean or _MEAN, report.std or _STD))
    encoder = model.eval().encoder
    assert encoder is not None
    rows = []
    for start in range(0, len(positions), BATCH):
        images = np.stack([_input(survey, i) for i in positions[start : start + BATCH]])
        rows.append(_pooled(encoder, (torch.from_numpy(images) / 255 - mean) / std))
    if not rows:
        return np.zeros((0, 1), dtype=np.float32)
    features = np.concatenate(rows)
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6))


@torch.inference_mode()
def _pooled(encoder: nn.Module, images: torch.Tensor) -> Float32[np.ndarray, "N D"]:
    """Each of the two levels at length 1, so that neither drowns the other."""
    levels = [level.mean(dim=(2, 3)) for level in encoder(images)[-2:]]
    pooled = torch.cat([nn.functional.normalize(level, dim=1) for level in levels], dim=1)
    return np.asarray(pooled.float().numpy())


def _input(survey: Survey, position: int) -> Float32[np.ndarray, "3 S S"]:
    small = reduced(survey.read_image(position), side_px=2 * SIDE_PX)
    square = cv2.resize(small, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(np.broadcast_to(np.atleast_3d(square), (SIDE_PX, SIDE_PX, 3)).transpose(2, 0, 1))


def encoder_of(path: Path) -> str:
    """The encoder that a weights file is of."""
    if not path.is_file():
        raise WeightsError("is missing", mend="check the path of the encoder weights", file=path)
    known = encoders_of(_MODEL)
    noted = ""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="np") as reader:
                noted = str((reader.metadata() or {}).get("architecture", ""))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"cannot be read ({error})", mend="copy or download it again", file=path) from error
    fitting = [name for name in known if name == noted] or [name for name in known if path.stem.startswith(name)]
    if not fitting:
        problem = f"does not say which encoder it is of ('{noted or path.stem}')"
        mend = f"begin its name with that of the encoder; {nearest(noted or path.stem, known)}"
        raise WeightsError(problem, mend=mend, file=path)
    return max(fitting, key=len)
