"""Label one large image: in tiles where it is large for the model too, read off in strips where it was scaled down.

Beside the image, which the caller holds (or a map of it), there are one batch of tiles, its logits, and the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from segwright.data.tiles import TILE_PX, Tile, is_large, tile_batches, tiles_of
from segwright.errors import DataError
from segwright.hardware import available_memory_bytes, is_out_of_memory
from segwright.models import ModelSpec
from segwright.prediction.fitting import fit, scale_down
from segwright.types import ImageArray

LogitsOf = Callable[[Tensor], Tensor]
"""Logits (N, K, h, w) of images (N, C, h, w)."""

STRIP_VALUES = 1 << 22
"""Logits are scaled up in strips of rows of so many values."""


def label_large(
    view: Callable[[], ImageArray],
    *,
    spec: ModelSpec,
    logits_of: LogitsOf,
    longer_side_px: int | None = None,
    tile_px: int = TILE_PX,
    batch_size: int = 1,
    probs: bool = False,
) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "K H W"] | None]:
    """The label of each pixel, and the probabilities of all classes where asked for.

    Args:
        view: gives the image; asked again for each batch, so that a pack may let go of what was read before.
        spec: of the model; the image is fitted to it piece by piece.
        logits_of: the model.
        longer_side_px: the model sees the image scaled down to this.
        tile_px: side of a tile.
        batch_size: the most tiles that go through the model at once.
        probs: also give the probabilities, which take 4 K bytes a pixel.

    Raises:
        DataError: the image does not fit the model, or a tile or the probabilities do not fit into the memory.
    """
    height, width = view().shape[1:]
    pred = np.empty((height, width), dtype=np.uint8)
    shares = _room_for_probs(spec.num_classes, height, width) if probs else None
    scaled = scale_down(view(), longer_side_px=longer_side_px)
    rows, columns = scaled.shape[1:]
    seen = view if (rows, columns) == (height, width) else lambda: scaled
    whole = Tile((0, rows), (0, columns), (0, rows), (0, columns))
    tiles = tiles_of(rows, columns, tile_px=tile_px) if is_large(rows, columns, tile_px=tile_px) else (whole,)
    for batch in tile_batches(tiles, most=batch_size):
        image = seen()
        cuts = [fit(image[:, tile.window[0], tile.window[1]], spec) for tile in batch]
        logits = in_halves(logits_of, torch.from_numpy(np.stack(cuts)))
        for tile, one in zip(batch, logits, strict=True):
            for place, part in _at_full_size(one, tile, size=(rows, columns), full=(height, width)):
                pred[place] = part.argmax(0).to(torch.uint8).cpu().numpy()
                if shares is not None:
                    shares[(slice(None), *place)] = part.float().softmax(0).cpu().numpy()
    return pred, shares


def in_halves(logits_of: LogitsOf, images: Tensor) -> Tensor:
    """Logits of a batch; where it is too large for the memory, of its halves.

    Raises:
        DataError: not even one image fits.
    """
    try:
        return logits_of(images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(images) == 1:
            size = f"{images.shape[2]} x {images.shape[3]}"
            mend = "use smaller tiles or data.working_size_px, or the CPU (--device cpu)"
            raise DataError(f"a piece of {size} pixels does not fit into the memory", mend=mend) from None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(images) // 2
    return torch.cat([in_halves(logits_of, images[:middle]), in_halves(logits_of, images[middle:])])


def _room_for_probs(num_classes: int, height: int, width: int) -> np.ndarray:
    wanted = 4 * num_classes * height * width
    if wanted > available_memory_bytes():
        problem = (
            f"the probabilities of {num_classes} classes for {width} x {height} pixels take {wanted / 2**30:.1f} GiB"
        )
        raise DataError(problem, mend="ask for the mask alone, or cut the image into pieces")
    return np.empty((num_classes, height, width), dtype=np.float32)


def _at_full_size(
    logits: Float[Tensor, "K h w"], tile: Tile, *, size: tuple[int, int], full: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """A tile's core in strips: where they lie in the full image, and their logits there.

    Scaling up is bilinear, as `torch.nn.functional.interpolate` has it with `align_corners=False`.
    """
    if size == full:
        yield tile.core, logits[:, tile.inner[0], tile.inner[1]]
        return
    (top, bottom), (left, right) = (
        (_first_beyond(first, side, wanted), _first_beyond(last, side, wanted))
        for (first, last), side, wanted in zip((tile.core_rows, tile.core_columns), size, full, strict=True)
    )
    across = _places(left, right, side=size[1], full=full[1], start=tile.columns[0]).to(logits.device)
    strip = max(1, STRIP_VALUES // (len(logits) * max(1, right - left)))
    for first in range(top, bottom, strip):
        last = min(first + strip, bottom)
        down = _places(first, last, side=size[0], full=full[0], start=tile.rows[0]).to(logits.device)
        # Only the rows that the strip lies between are stretched.
        low = int(down[0])
        needed = logits[:, low : int(down[-1]) + 2].float()
        yield (slice(first, last), slice(left, right)), _between(_between(needed, across, dim=2), down - low, dim=1)


def _first_beyond(place: int, side: int, full: int) -> int:
    """The first pixel of the full side whose centre lies at or beyond a border between pixels of the scaled side."""
    return -((side - 2 * place * full) // (2 * side))


def _places(first: int, last: int, *, side: int, full: int, start: int) -> Tensor:
    """Centres of pixels of the full side as coordinates in a tile of the scaled side."""
    centres = (torch.arange(first, last, dtype=torch.float64) + 0.5) * (side / full) - 0.5
    return centres.clamp(0, side - 1) - start


def _between(values: Tensor, places: Tensor, *, dim: int) -> Tensor:
    """Linear interpolation along an axis."""
    low = places.long()
    high = (low + 1).clamp(max=values.shape[dim] - 1)
    shape = [1] * values.ndim
    shape[dim] = -1
    share = (places - low).to(values.dtype).view(shape)
    return values.index_select(dim, low).lerp(values.index_select(dim, high), share)
