"""DeepLabV3+ (Chen et al. 2018, https://arxiv.org/abs/1802.02611) whose fine feature comes from a stage of choice.

The paper joins the pyramid with the encoder's feature at a quarter of the image. A course project took
`conv4_block6_2_relu` of ResNet-50 instead, of its stage at a sixteenth; `low_level_stride: 16` takes the output of that
stage.
"""

from __future__ import annotations

import inspect
from typing import Any, final

import segmentation_models_pytorch as smp
from torch import Tensor, nn

STRIDES = (4, 8, 16)


@final
class DeepLabV3Plus(smp.DeepLabV3Plus):  # type: ignore[misc]  # the library has no types
    """The library's, with one more argument.

    Args:
        low_level_stride: of the fine feature, 4, 8 or 16, and no more than the stride of the coarsest.
        arguments: those of the library.

    Raises:
        ValueError: there is no feature of that stride.
    """

    def __init__(self, *, low_level_stride: int = STRIDES[0], **arguments: Any) -> None:
        super().__init__(**{"upsampling": low_level_stride} | arguments)
        coarsest = int(self.encoder.output_stride)
        if low_level_stride not in STRIDES or low_level_stride > coarsest:
            raise ValueError(f"low_level_stride is one of {STRIDES}, and here at most {coarsest}")
        self._place = low_level_stride.bit_length() - 1
        if low_level_stride != STRIDES[0]:
            first = self.decoder.block1[0]
            channels = self.encoder.out_channels[self._place]
            self.decoder.block1[0] = nn.Conv2d(channels, first.out_channels, kernel_size=1, bias=False)
            factor = coarsest // low_level_stride
            self.decoder.up = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=True)

    def forward(self, x: Tensor) -> Tensor:
        features = list(self.encoder(x))
        # Where the library's decoder reads its fine feature.
        features[2] = features[self._place]
        logits: Tensor = self.segmentation_head(self.decoder(features))
        return logits


_LIBRARYS = inspect.signature(smp.DeepLabV3Plus)
_MORE = inspect.Parameter("low_level_stride", inspect.Parameter.KEYWORD_ONLY, default=STRIDES[0])
# So that `segwright models` lists every argument.
DeepLabV3Plus.__signature__ = _LIBRARYS.replace(
    parameters=[one for one in _LIBRARYS.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD] + [_MORE]
)
