"""What stands around every network: normalisation, padding, cropping, classes that are never predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from segwright.errors import RecipeError
from segwright.models import InputSize, ModelSpec, SegmentationModel


class Echo(nn.Module):
    """Answers with its input, less a margin: what goes in can be seen to come out."""

    def __init__(self, margin: int = 0) -> None:
        super().__init__()
        self.margin = margin
        self.seen: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.seen = tuple(x.shape)
        stop = -self.margin or None
        return x[..., self.margin : stop, self.margin : stop].clone()


def echo(channels: int = 3, *, size: InputSize | None = None, **values: object) -> SegmentationModel:
    size = size or InputSize(1)
    spec = ModelSpec("echo", channels, channels, **values)
    return SegmentationModel(spec, Echo(size.margin), encoder=None, input_size=size)


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.uint8, 255.0), (torch.uint16, 65535.0), (torch.float32, 1.0), (torch.float64, 1.0)]
)
def test_normalization(channels: int, channels_last: bool, dtype: torch.dtype, scale: float) -> None:
    raw = torch.rand(2, channels, 9, 11) * scale
    images = raw.to(dtype)
    if channels_last:
        images = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    mean = tuple(0.1 * (c + 1) for c in range(channels))
    std = tuple(0.2 + 0.1 * c for c in range(channels))
    result = echo(channels, mean=mean, std=std, scale=scale, size=InputSize(4))(images)
    plain = images.double().numpy() / scale
    wanted = (plain - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_normalization_can_be_changed_and_stays_in_the_spec() -> None:
    model = echo()
    model.set_normalization(mean=(0.5,), std=(0.25, 0.5, 1.0))
    assert model.spec.mean == (0.5,)
    result = model(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    torch.testing.assert_close(result[0, :, 0, 0], torch.tensor([2.0, 1.0, 0.5]))
    assert not model.state_dict()


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    stride=st.sampled_from([1, 4, 16, 32]),
    offset=st.integers(0, 31),
    margin=st.integers(0, 40),
    steps=st.integers(1, 3),
)
def test_padding_is_reflection_and_is_cropped_away(
    height: int, width: int, stride: int, offset: int, margin: int, steps: int
) -> None:
    offset %= stride
    minimum = steps * stride + offset
    size = InputSize(stride, offset=offset, margin=margin, minimum=minimum)
    model = echo(1, size=size, scale=1.0)
    images = torch.rand(1, 1, height, width)
    torch.testing.assert_close(model(images), images)
    rows, columns = model.net.seen[2:]
    for side, given_side in ((rows, height), (columns, width)):
        assert side % stride == offset
        assert side >= max(minimum, given_side + 2 * margin)
        assert side - max(minimum, given_side + 2 * margin) < stride
    padded = model._padded(images)[0, 0].numpy()
    after = (rows - margin - height, columns - margin - width)
    wanted = np.pad(images[0, 0].numpy(), ((margin, after[0]), (margin, after[1])), mode="reflect")
    np.testing.assert_array_equal(padded, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_classes_that_are_never_predicted(dtype: torch.dtype) -> None:
    model = echo(4, never_predict=(0, 2), size=InputSize(4))
    model.net.register_forward_hook(lambda module, given, result: result.to(dtype))
    logits = model(torch.randint(0, 256, (2, 4, 9, 10), dtype=torch.uint8))
    assert logits.isfinite().all()
    assert set(logits.argmax(1).unique().tolist()) <= {1, 3}
    assert logits.float().softmax(1)[:, [0, 2]].max() == 0


def test_wrong_channels_are_named() -> None:
    with pytest.raises(RecipeError, match="images of 4 channels for a model of 3"):
        echo()(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"in_channels": 0}, "0 input channels"),
        ({"num_classes": 256}, "256 classes"),
        ({"mean": (0.1, 0.2)}, "for 3 channels"),
        ({"mean": (float("nan"),)}, "normalisation mean"),
        ({"std": (0.0,)}, "std"),
        ({"scale": 0.0}, "scale"),
        ({"never_predict": (5,)}, "never_predict"),
        ({"never_predict": (0, 1, 2, 3, 4)}, "leave at least one"),
    ],
)
def test_specs_that_are_refused(values: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ModelSpec(**{"name": "unet", "in_channels": 3, "num_classes": 5, **values})
    with pytest.raises(TypeError, match="unknown key 'colour'"):
        ModelSpec.from_dict({"name": "unet", "in_channels": 3, "num_classes": 5, "colour": 1})
