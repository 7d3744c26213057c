"""Averages over flips: the mean by hand, the symmetry they promise, odd sizes, tiles, scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from segwright.bundle import Bundle
from segwright.data.pack import pack_arrays
from segwright.errors import RecipeError
from segwright.evaluation.evaluate import evaluate
from segwright.models import ModelSpec, build_model
from segwright.prediction.labelling import label_large
from segwright.prediction.predictor import Predictor
from segwright.prediction.tta import SYMMETRIES, Flips, averaged, symmetries_of
from segwright.types import ClassSet

CLASSES = ClassSet(("a", "b", "c", "d"), ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)))

Turn = Callable[[np.ndarray], np.ndarray]

# Each copy and the way back, in plain numpy, for arrays whose last two axes are rows and columns.
LEFT_RIGHT: Turn = lambda a: a[..., ::-1]  # noqa: E731  # a table of one-liners reads best
UP_DOWN: Turn = lambda a: a[..., ::-1, :]  # noqa: E731
DIAGONAL: Turn = lambda a: a.swapaxes(-1, -2)  # noqa: E731
BY_HAND: dict[Flips, list[tuple[list[Turn], list[Turn]]]] = {
    "horizontal": [([], []), ([LEFT_RIGHT], [LEFT_RIGHT])],
    "both": [(steps, steps) for steps in ([], [LEFT_RIGHT], [UP_DOWN], [LEFT_RIGHT, UP_DOWN])],
}
BY_HAND["all"] = [*BY_HAND["both"], *(([*to, DIAGONAL], [DIAGONAL, *back]) for to, back in BY_HAND["both"])]


def through(array: np.ndarray, steps: list[Turn]) -> np.ndarray:
    for step in steps:
        array = step(array)
    return np.ascontiguousarray(array)


def mean_by_hand(probs_of: Turn, image: np.ndarray, flips: Flips) -> np.ndarray:
    copies = [through(probs_of(through(image, to)), back) for to, back in BY_HAND[flips]]
    return np.mean(np.stack(copies).astype(np.float64), axis=0)


def make_bundle(*, in_channels: int = 3, scale: float = 255.0, never: tuple[int, ...] = ()) -> Bundle:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="unet", in_channels=in_channels, num_classes=4, encoder=None, arguments={"depth": 2, "width": 4},
        mean=(0.5,) * in_channels, std=(0.25,) * in_channels, scale=scale, never_predict=never,
    )  # fmt: skip
    return Bundle(build_model(spec).eval(), CLASSES, {})


def picture(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def local_network(*, reach: int = 10, symmetric: bool = False) -> nn.Conv2d:
    """Sees so many pixels around each; may have all symmetries of a square."""
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 2 * reach + 1, padding=reach, padding_mode="reflect", bias=False).requires_grad_(False)
    weight = torch.randint(-8, 9, net.weight.shape).float()
    if symmetric:
        weight = torch.stack([symmetry.of(weight) for symmetry in SYMMETRIES["all"]]).mean(0)
    net.weight.copy_(weight / (30 * (2 * reach + 1) ** 2))
    return net


@pytest.mark.parametrize("flips", ["horizontal", "both", "all"])
def test_predictions_are_the_mean_by_hand_at_any_size(rng: np.random.Generator, flips: Flips) -> None:
    bundle = make_bundle()
    plain = Predictor(bundle, device="cpu", precision="fp32")
    flipping = Predictor(bundle, device="cpu", precision="fp32", flips=flips)

    def probs_of(image: np.ndarray) -> np.ndarray:
        told = plain.predict(image, probs=True).probs
        assert told is not None
        return told

    images = [picture(rng, 3, *size) for size in ((37, 50), (24, 24), (37, 50), (1, 9))]
    for image, found in zip(images, flipping.predict_many(images, probs=True), strict=True):
        expected = mean_by_hand(probs_of, image, flips)
        assert found.probs is not None
        assert found.probs.dtype == np.float32
        np.testing.assert_allclose(found.probs, expected, atol=1e-6)
        np.testing.assert_array_equal(found.mask, found.probs.argmax(0))
    assert np.abs(mean_by_hand(probs_of, images[0], flips) - probs_of(images[0])).max() > 1e-3


def test_without_flips_the_model_answers_itself() -> None:
    images, asked = torch.zeros(2, 3, 5, 6), torch.ones(2, 4, 5, 6, dtype=torch.bfloat16)
    assert averaged(lambda _: asked, images, over=symmetries_of("none")) is asked


def test_a_network_with_the_symmetry_answers_as_without(rng: np.random.Generator) -> None:
    net, image = local_network(symmetric=True), picture(rng, 3, 61, 84)

    def told(flips: Flips) -> tuple[np.ndarray, np.ndarray]:
        # Logits are scaled up between pixels, so they must be the same ones, not only of the same probabilities.
        pred, probs = label_large(
            lambda: image,
            spec=make_bundle().model.spec,
            logits_of=lambda images: averaged(lambda x: net(x.float()), images, over=symmetries_of(flips)),
            longer_side_px=50,
            probs=True,
        )
        assert probs is not None
        return pred, probs

    pred, probs = told("none")
    for flips in ("horizontal", "both", "all"):
        again, same = told(flips)
        np.testing.assert_allclose(same, probs, atol=2e-5)
        assert (again != pred).mean() < 1e-3


@settings(max_examples=9)
@given(height=st.integers(3, 12), width=st.integers(3, 12), flips=st.sampled_from(["horizontal", "both", "all"]))
def test_turning_the_image_turns_the_answer(height: int, width: int, flips: Flips) -> None:
    net = local_network(reach=2)
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height)) * 255

    def answer(x: Tensor) -> Tensor:
        return averaged(net, x, over=symmetries_of(flips))

    upright = answer(images)
    torch.testing.assert_close(upright.exp().sum(1), torch.ones(2, height, width))
    for symmetry in SYMMETRIES["all"]:
        differs = (symmetry.undone(answer(symmetry.of(images))) - upright).abs().max()
        assert (differs < 1e-3) == (symmetry in symmetries_of(flips))


@pytest.mark.parametrize("flips", ["horizontal", "all"])
def test_tiles_give_what_the_whole_image_gives(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, flips: Flips
) -> None:
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 1000)
    net, image = local_network(), picture(rng, 3, 131, 207)

    def probs_of(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(image)[None].float()).softmax(1)[0].numpy()

    def logits_of(images: Tensor) -> Tensor:
        assert max(images.shape[2:]) <= 96
        with torch.inference_mode():
            return averaged(lambda x: net(x.float()), images, over=symmetries_of(flips))

    expected = mean_by_hand(probs_of, image, flips)
    pred, probs = label_large(
        lambda: image, spec=make_bundle().model.spec, logits_of=logits_of, tile_px=96, batch_size=2, probs=True
    )
    assert probs is not None
    np.testing.assert_allclose(probs, expected, atol=1e-5)
    np.testing.assert_array_equal(pred, probs.argmax(0))


def test_a_predictor_averages_within_its_tiles(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sides that strides divide: the grid of a mirrored tile is then that of the mirrored image.
    bundle, image = make_bundle(), picture(rng, 3, 160, 224)
    whole = Predictor(bundle, device="cpu", precision="fp32", tile_px=None, flips="all").predict(image, probs=True)
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 1000)
    tiled = Predictor(bundle, device="cpu", precision="fp32", tile_px=128, flips="all").predict(image, probs=True)
    assert whole.probs is not None
    assert tiled.probs is not None
    np.testing.assert_allclose(tiled.probs, whole.probs, atol=1e-5)


@pytest.mark.parametrize("flips", ["none", "horizontal", "all"])
def test_what_is_never_predicted_keeps_no_probability(rng: np.random.Generator, flips: Flips) -> None:
    image = picture(rng, 3, 19, 30)
    free = Predictor(make_bundle(), device="cpu", flips=flips).predict(image)
    banned = int(np.bincount(free.mask.ravel()).argmax())
    found = Predictor(make_bundle(never=(banned,)), device="cpu", flips=flips).predict(image, probs=True)
    assert found.probs is not None
    assert not found.probs[banned].any()
    assert not (found.mask == banned).any()
    np.testing.assert_allclose(found.probs.sum(0), 1, atol=1e-5)


def test_gray_and_deep_images_are_averaged(rng: np.random.Generator) -> None:
    bundle = make_bundle(in_channels=1, scale=65535.0)
    image = rng.integers(0, 65536, (1, 21, 34), dtype=np.uint16)
    plain = Predictor(bundle, device="cpu", precision="fp32")
    expected = mean_by_hand(lambda one: plain.predict(one[None], probs=True).probs, image[0], "all")
    found = Predictor(bundle, device="cpu", precision="fp32", flips="all").predict(image, probs=True)
    np.testing.assert_allclose(found.probs, expected, atol=1e-6)


@pytest.mark.parametrize("large", [False, True])
def test_scores_are_those_of_the_predictions(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr("segwright.evaluation.counting.choose_precision", lambda name, device: "fp32")
    if large:
        monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 100)
    bundle = make_bundle()
    images = [picture(rng, 3, *size) for size in ((24, 33), (24, 33), (40, 17))]
    preds = [one.mask for one in Predictor(bundle, device="cpu", precision="fp32", flips="all").predict_many(images)]
    pack = pack_arrays(images, preds)

    def wrong(flips: Flips) -> int:
        done = evaluate(
            bundle, pack, range(3), split_name="x", out=None, device="cpu", batch_size=2, flips=flips, progress=False
        )
        assert done.summary["flips"] == flips
        counts = done.confusion.sum(0)
        return int(counts.sum() - np.trace(counts))

    assert wrong("all") == 0
    assert wrong("none") > 0


def test_low_precision_is_averaged_in_float32() -> None:
    predictors = [
        Predictor(make_bundle(), device="cpu", precision=precision, flips="all") for precision in ("fp32", "bf16")
    ]
    exact, quick = (one.predict(picture(np.random.default_rng(1), 3, 33, 20), probs=True).probs for one in predictors)
    assert exact is not None
    assert quick is not None
    np.testing.assert_allclose(quick, exact, atol=0.05)
    np.testing.assert_allclose(quick.sum(0), 1, atol=1e-5)


def test_other_words_are_answered_with_the_menu() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'horizontal'"):
        symmetries_of("horizontl")
