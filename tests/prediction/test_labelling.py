"""Labels of large images are those of the whole image, for networks that look no further than the tiles overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from segwright.data.tiles import Tile
from segwright.errors import DataError
from segwright.models import ModelSpec, build_model
from segwright.prediction import labelling
from segwright.prediction.fitting import scale_down
from segwright.prediction.labelling import in_halves, label_large

SPEC = ModelSpec(name="unet", in_channels=3, num_classes=4, arguments={"depth": 2, "width": 4})


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 1000)


def local_network(reach: int = 10) -> nn.Module:
    """Sees so many pixels around each; whole numbers, so that no order of summation shows."""
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 2 * reach + 1, padding=reach, padding_mode="reflect", bias=False).requires_grad_(False)
    net.weight.copy_(torch.randint(-8, 9, net.weight.shape))
    return net


def whole(net: nn.Module, image: np.ndarray) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = net(torch.from_numpy(image)[None].float())
    return logits[0]


@pytest.mark.parametrize(("size", "batch_size"), [((250, 330), 1), ((129, 1000), 3), ((64, 65), 8)])
def test_tiles_give_what_the_whole_image_gives(
    rng: np.random.Generator, size: tuple[int, int], batch_size: int
) -> None:
    net, image = local_network(), rng.integers(0, 256, (3, *size), dtype=np.uint8)
    sizes: list[int] = []

    def logits_of(images: Tensor) -> Tensor:
        sizes.append(len(images))
        assert max(images.shape[2:]) <= 128
        with torch.inference_mode():
            return net(images.float())

    expected = whole(net, image)
    pred, probs = label_large(
        lambda: image, spec=SPEC, logits_of=logits_of, tile_px=128, batch_size=batch_size, probs=True
    )
    np.testing.assert_array_equal(pred, expected.argmax(0).numpy())
    assert probs is not None
    np.testing.assert_allclose(probs, expected.softmax(0).numpy(), atol=1e-6)
    assert max(sizes) <= batch_size


def test_a_strided_network_sees_the_same_grid(rng: np.random.Generator) -> None:
    model = build_model(ModelSpec(name="unet", in_channels=1, num_classes=4, arguments={"depth": 3, "width": 4})).eval()
    image = rng.integers(0, 256, (1, 397, 501), dtype=np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)[None])[0]
        _, probs = label_large(lambda: image, spec=model.spec, logits_of=model, tile_px=320, probs=True)
    assert probs is not None
    np.testing.assert_allclose(probs, expected.softmax(0).numpy(), atol=1e-5)


@given(
    size=st.tuples(st.integers(40, 130), st.integers(40, 130)), longer=st.integers(20, 100), tile_px=st.integers(64, 90)
)
def test_logits_are_scaled_up_as_torch_does(size: tuple[int, int], longer: int, tile_px: int) -> None:
    net, image = local_network(2), np.random.default_rng(size).integers(0, 256, (3, *size), dtype=np.uint8)
    small = whole(net, scale_down(image, longer_side_px=longer)) / 2000
    expected = F.interpolate(small[None], size=size, mode="bilinear")[0].softmax(0).numpy()
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(labelling, "STRIP_VALUES", 4 * 130 * 7)
        pred, probs = label_large(
            lambda: image, spec=SPEC, logits_of=lambda images: net(images.float()) / 2000, longer_side_px=longer,
            tile_px=tile_px, probs=True,
        )  # fmt: skip
    assert probs is not None
    np.testing.assert_allclose(probs, expected, atol=1e-4)
    np.testing.assert_array_equal(pred, probs.argmax(0))


def test_pieces_are_fitted_one_by_one(rng: np.random.Generator) -> None:
    net = local_network()
    gray = rng.integers(0, 256, (1, 150, 200), dtype=np.uint8)
    with torch.inference_mode():
        pred, probs = label_large(lambda: gray, spec=SPEC, logits_of=lambda images: net(images.float()), tile_px=96)
    np.testing.assert_array_equal(pred, whole(net, gray.repeat(3, axis=0)).argmax(0).numpy())
    assert probs is None
    with pytest.raises(DataError, match="has 5 channels"):
        label_large(lambda: np.zeros((5, 150, 200), np.uint8), spec=SPEC, logits_of=net)


def test_a_batch_too_large_is_halved_and_a_piece_too_large_is_said() -> None:
    sizes: list[int] = []

    def short_of_memory(images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return images * 2

    images = torch.arange(7.0).view(7, 1, 1, 1)
    assert torch.equal(in_halves(short_of_memory, images), images * 2)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]

    def hopeless(images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DataError, match="a piece of 1 x 1 pixels does not fit"):
        in_halves(hopeless, images)

    def broken(images: Tensor) -> Tensor:
        raise RuntimeError("sizes differ")

    with pytest.raises(RuntimeError, match="sizes differ"):
        in_halves(broken, images)


def test_probabilities_that_do_not_fit_are_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "available_memory_bytes", lambda: 10 << 30)
    huge = np.broadcast_to(np.uint8(0), (3, 30_000, 30_000))
    with pytest.raises(DataError, match=r"4 classes for 30000 x 30000 pixels take 13\.4 GiB"):
        label_large(lambda: huge, spec=SPEC, logits_of=lambda images: images, probs=True)


def test_strips_part_the_image() -> None:
    tile = Tile((0, 7), (3, 10), (0, 5), (4, 9))
    logits = torch.zeros(2, 7, 7)
    places = [place for place, _ in labelling._at_full_size(logits, tile, size=(13, 11), full=(40, 50))]
    rows = [row for place in places for row in range(place[0].start, place[0].stop)]
    # Rows whose centres lie within rows 0 to 5 of 13, columns within 4 to 9 of 11.
    assert rows == [r for r in range(40) if (r + 0.5) * 13 / 40 < 5]
    assert [places[0][1].start, places[0][1].stop] == [18, 41]
