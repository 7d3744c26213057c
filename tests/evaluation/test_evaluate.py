"""Evaluation against a plain loop over images, on real packs of many sizes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segwright.bundle import Bundle
from segwright.data.pack import Pack, open_pack, pack_arrays
from segwright.data.sources import open_source
from segwright.data.synthetic import TERRAIN_COLORS, TERRAIN_NAMES, terrain, write_image
from segwright.errors import DataError, MaskError, RecipeError
from segwright.evaluation.counting import Counted, Network
from segwright.evaluation.evaluate import Evaluation, evaluate
from segwright.evaluation.examples import LONGER_SIDE_PX, ExampleKeeper
from segwright.evaluation.summary import prevalent, require_set_apart, summarize
from segwright.files import read_arrays, read_json
from segwright.metrics import DEFINITIONS, score
from segwright.models import ModelSpec, build_model
from segwright.types import IGNORE_INDEX, ClassSet

CLASSES = ClassSet(TERRAIN_NAMES, TERRAIN_COLORS, ignore_in_score=(0,))


def make_bundle(classes: ClassSet = CLASSES, *, in_channels: int = 3) -> Bundle:
    torch.manual_seed(0)
    spec = ModelSpec(
        name="unet", in_channels=in_channels, num_classes=classes.num_classes, encoder=None,
        arguments={"depth": 2, "width": 4}, mean=(0.5,) * in_channels, std=(0.25,) * in_channels, scale=255.0,
        never_predict=(),
    )  # fmt: skip
    return Bundle(model=build_model(spec).eval(), classes=classes, info={})


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Nine labelled images of three sizes, one of them half void, and an unlabelled one."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(10):
        size = [(40, 56), (64, 48), (40, 56), (33, 47)][number % 4]
        image, mask = terrain(np.random.default_rng(number), size)
        if number == 4:
            mask[:20] = IGNORE_INDEX
        side = "test" if number == 7 else "val"
        write_image(folder / side / "images" / f"photo_{number}.png", image)
        if number != 7:
            write_image(folder / side / "masks" / f"photo_{number}.png", mask[None])
    source = open_source(folder, names=TERRAIN_NAMES)
    return open_pack(source, cache=tmp_path_factory.mktemp("cache"), progress=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def result(pack: Pack, run: Path) -> Evaluation:
    return evaluate(
        make_bundle(), pack, range(len(pack)), split_name="val", out=run, device="cpu", batch_size=3, progress=False
    )


@torch.inference_mode()
def plain_loop(bundle: Bundle, pack: Pack) -> dict[str, np.ndarray]:
    """Counts of each labelled image, one pixel list at a time."""
    found = {}
    for i, name in enumerate(pack.ids):
        mask = pack.mask(i)
        if mask is None:
            continue
        pred = bundle.model(torch.from_numpy(pack.image(i).copy())[None]).argmax(1)[0].numpy()
        counts = np.zeros((5, 5), dtype=np.int64)
        known = mask != IGNORE_INDEX
        np.add.at(counts, (mask[known], pred[known]), 1)
        found[name] = counts
    return found


def test_counts_equal_a_plain_loop(pack: Pack, result: Evaluation) -> None:
    expected = plain_loop(make_bundle(), pack)
    assert sorted(result.ids) == sorted(expected)
    for name, counts in zip(result.ids, result.confusion, strict=True):
        assert counts.sum() == expected[name].sum()
        # bfloat16, where the processor has it, may turn a few undecided pixels
        assert np.abs(counts - expected[name]).sum() <= 0.03 * counts.sum()
    assert result.summary["unlabelled"] == 1
    assert result.summary["images"] == 9


def test_large_images_are_counted_in_tiles(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segwright.evaluation.counting.choose_precision", lambda name, device: "fp32")
    labelled = np.flatnonzero(pack.has_mask)[:2].tolist()
    images = [np.tile(pack.image(i), (1, 5, 5)) for i in labelled]
    masks = [np.tile(pack.mask(i), (5, 5)) for i in labelled]
    large = pack_arrays([*images, images[0][:, :40, :50]], [*masks, masks[0][:40, :50]])

    def counted() -> list[Counted]:
        network = Network(make_bundle(), torch.device("cpu"), batch_size=2, tile_px=160)
        return sorted(network.count(large, [2, 1, 0]), key=lambda one: one.index)

    whole = counted()
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 10_000)
    for one, other in zip(whole, counted(), strict=True):
        assert one.index == other.index
        assert one.confusion.sum() == large.class_pixels[one.index, :5].sum()
        # Tiles may sum in another order than the image as a whole.
        assert (one.pred != other.pred).sum() <= 4
        assert np.abs(one.confusion - other.confusion).sum() <= 8
        assert np.abs(one.boundary - other.boundary).sum() <= 32


def test_float32_counts_are_exactly_those_of_the_loop(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segwright.evaluation.counting.choose_precision", lambda name, device: "fp32")
    expected = plain_loop(make_bundle(), pack)
    labelled = np.flatnonzero(pack.has_mask)
    exact = evaluate(make_bundle(), pack, labelled, split_name="x", out=None, device="cpu", progress=False)
    for name, counts in zip(exact.ids, exact.confusion, strict=True):
        # a batch may sum in another order than an image alone
        assert np.abs(counts - expected[name]).sum() <= 4


def test_what_is_written_is_what_is_returned(run: Path, result: Evaluation) -> None:
    scores = run / "scores"
    arrays = read_arrays(scores / "val.npz")
    assert tuple(arrays["ids"].tolist()) == result.ids
    np.testing.assert_array_equal(arrays["confusion"], result.confusion)
    np.testing.assert_array_equal(arrays["boundary"], result.boundary)
    assert arrays["boundary"].shape == (9, 5, 4)
    summary = read_json(scores / "val.json")
    assert summary["definitions"]["declared"]["miou"]["estimate"] == pytest.approx(result.miou)
    assert result.miou == pytest.approx(float(score(result.confusion.sum(0), CLASSES).miou))
    mars = replace(result, score_as="keras-mars").miou
    assert mars == pytest.approx(float(score(result.confusion.sum(0), CLASSES, "keras-mars").miou))
    assert mars < result.miou  # some pixels are predicted as the class that is set apart
    assert summary["images_per_second"] > 0
    with (scores / "val.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == list(TERRAIN_NAMES)
    assert rows[0]["iou"] == ""
    assert float(rows[1]["iou"]) == pytest.approx(float(score(result.confusion.sum(0), CLASSES).iou[1]), abs=1e-6)
    with (scores / "val_images.csv").open(encoding="utf-8") as stream:
        images = list(csv.DictReader(stream))
    assert [row["id"] for row in images] == list(result.ids)


def test_examples_are_the_best_and_the_worst(run: Path, result: Evaluation, pack: Pack) -> None:
    arrays = read_arrays(run / "scores" / "val_examples.npz")
    each = score(result.confusion, CLASSES).miou
    ranked = [result.ids[k] for k in np.argsort(-each)]
    assert arrays["kinds"].tolist() == ["best"] * 5 + ["worst"] * 4
    np.testing.assert_allclose(arrays["scores"][:5], -np.sort(-each)[:5])
    np.testing.assert_allclose(arrays["scores"][5:], np.sort(each)[:4])
    assert arrays["ids"][0] == ranked[0]
    index = pack.ids.index(ranked[0])
    np.testing.assert_array_equal(arrays["image_0"], pack.image(index))
    np.testing.assert_array_equal(arrays["mask_0"], pack.mask(index))


def test_groups_are_those_of_the_images_in_their_order(pack: Pack) -> None:
    groups = [f"group {i % 3}" for i in range(len(pack))]
    grouped = evaluate(
        make_bundle(), pack, range(len(pack)), split_name="val", out=None, device="cpu", groups=groups, progress=False
    )
    assert grouped.summary["grouped"]
    assert grouped.summary["units"] == 3
    chosen = [groups[pack.ids.index(name)] for name in grouped.ids]
    alone = summarize(grouped.confusion, grouped.boundary, CLASSES, groups=chosen)
    assert alone["definitions"] == grouped.summary["definitions"]


def test_a_gray_model_scores_colour_images(pack: Pack) -> None:
    gray = make_bundle(in_channels=1)
    some = np.flatnonzero(pack.has_mask)[:3]
    result = evaluate(gray, pack, some, split_name="val", out=None, device="cpu", progress=False)
    assert result.confusion.sum() == sum(np.count_nonzero(pack.mask(int(i)) != IGNORE_INDEX) for i in some)


def test_unlabelled_images_alone_cannot_be_scored(pack: Pack) -> None:
    unlabelled = np.flatnonzero(~pack.has_mask)
    with pytest.raises(DataError, match="none of the 1 images of 'test' has a mask"):
        evaluate(make_bundle(), pack, unlabelled, split_name="test", out=None, device="cpu", progress=False)


def test_a_class_that_the_model_does_not_know_is_named(pack: Pack) -> None:
    small = make_bundle(ClassSet(("a", "b"), ((0, 0, 0),) * 2))
    with pytest.raises(MaskError, match="mask of 2 classes"):
        evaluate(small, pack, np.flatnonzero(pack.has_mask), split_name="val", out=None, device="cpu", progress=False)


def test_out_of_memory_is_met_with_smaller_batches(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle()
    whole = bundle.model.forward
    sizes = []

    def forward(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError
        return whole(images)

    monkeypatch.setattr(bundle.model, "forward", forward)
    same = [i for i in range(len(pack)) if tuple(pack.sizes[i]) == (40, 56)]
    result = evaluate(bundle, pack, same, split_name="val", out=None, device="cpu", batch_size=4, progress=False)
    assert max(sizes) > 1
    assert len(result.ids) == len(same)


def test_summary_by_hand() -> None:
    confusion = np.zeros((2, 3, 3), dtype=np.int64)
    confusion[0] = [[5, 1, 0], [0, 8, 2], [0, 0, 0]]
    confusion[1] = [[9, 0, 0], [1, 1, 0], [0, 3, 4]]
    boundary = np.zeros((2, 3, 4), dtype=np.int64)
    boundary[:, 1] = [4, 2, 4, 2]
    rules = ClassSet(("a", "b", "c"), ((0, 0, 0),) * 3, ignore_in_score=(0,))
    tree = summarize(confusion, boundary, rules, resamples=50)
    true, pred = prevalent(confusion, rules)
    assert true.tolist() == [1, 2]
    assert pred.tolist() == [1, 1]
    assert tree["prevalent_accuracy"]["estimate"] == 0.5
    assert tree["boundary_f1"]["estimate"] == pytest.approx(0.5)
    assert tree["definitions"]["declared"]["in_mean"] == ["b", "c"]
    rows = tree["per_class"]
    assert np.isnan(rows[0]["iou"]["estimate"])
    assert rows[0]["precision"] is None
    assert rows[1]["true_pixels"] == 12
    assert rows[1]["precision"] == pytest.approx(9 / 12)
    assert rows[1]["images"] == 2
    assert rows[2]["images"] == 1
    assert sum(row["true_share"] for row in rows) == pytest.approx(1)
    assert tree["confusion"] == confusion.sum(0).tolist()


def test_few_examples_stand_on_one_side_only(rng: np.random.Generator) -> None:
    keeper = ExampleKeeper()
    image = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    mask = np.zeros((8, 8), dtype=np.uint8)
    for number, value in enumerate([0.3, float("nan"), 0.9, 0.5]):
        keeper.offer(str(number), value, image, mask, mask)
    assert [(one.kind, one.id) for one in keeper.kept()] == [("best", "2"), ("best", "3"), ("worst", "0")]


def test_large_examples_are_scaled_down_with_their_masks() -> None:
    keeper = ExampleKeeper()
    mask = np.zeros((400, 1300), dtype=np.uint8)
    mask[:, 650:] = 3
    image = np.repeat(mask[None] * np.uint8(80), 4, axis=0)
    keeper.offer("wide", 1.0, image, mask, mask)
    kept = keeper.kept()[0]
    assert kept.image.shape == (3, round(400 * LONGER_SIDE_PX / 1300), LONGER_SIDE_PX)
    assert kept.mask.shape == kept.image.shape[1:]
    assert set(np.unique(kept.mask)) == {0, 3}
    assert np.abs(kept.image[0].astype(int) - kept.mask.astype(int) * 80).mean() < 2


def test_a_definition_of_classes_set_apart_needs_some() -> None:
    run = Path("runs/night-1")
    plain = ClassSet(TERRAIN_NAMES, TERRAIN_COLORS)
    outside = ClassSet(TERRAIN_NAMES, TERRAIN_COLORS, leave_out_of_mean=(0,))
    for name in DEFINITIONS:
        require_set_apart(CLASSES, name, run=run)
    refused = {plain: ["ignore_in_score", "leave_out_of_mean", "keras-mars"], outside: ["keras-mars"]}
    for classes, names in refused.items():
        for name in DEFINITIONS:
            if name in names:
                with pytest.raises(
                    RecipeError, match=r"runs/night-1: was trained without classes\..*--ignore-in-score"
                ):
                    require_set_apart(classes, name, run=run)
            else:
                require_set_apart(classes, name, run=run)
