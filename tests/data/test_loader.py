"""The training stream is endless, full and exactly resumable; the evaluation loader shows every image once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.augment import PRESETS
from segwright.confusion import confusion_per_image
from segwright.data import eval_loader as loader_module
from segwright.data.eval_loader import EvalLoader
from segwright.data.loader import TrainLoader
from segwright.data.pack import Pack, pack_arrays
from segwright.data.prefetch import PrefetchLoader
from segwright.errors import DataError, RecipeError, RunError
from segwright.losses import build_loss
from segwright.tensors import Batch


def numbered(count: int, *, size: tuple[int, int] = (6, 8)) -> Pack:
    """Image i is full of i, its mask full of i % 3."""
    images = [np.full((3, *size), i, dtype=np.uint8) for i in range(count)]
    return pack_arrays(images, [np.full(size, i % 3, dtype=np.uint8) for i in range(count)])


def train_loader(
    pack: Pack, indices: list[int], *, batch_size: int = 4, preset: str = "none", seed: int = 0, weights=None
):
    return TrainLoader(
        pack, indices, batch_size=batch_size, policy=PRESETS[preset], crop_px=(6, 8), weights=weights, seed=seed
    )


def rows(loader: TrainLoader, steps: int) -> np.ndarray:
    return np.concatenate([loader.batch(step).index.numpy() for step in range(steps)])


def same(first: Batch, second: Batch) -> bool:
    assert first.masks is not None
    assert second.masks is not None
    return torch.equal(first.images, second.images) and torch.equal(first.masks, second.masks)


def test_a_batch_holds_the_images_that_it_names():
    batch = train_loader(numbered(10), list(range(10))).batch(0)
    assert batch.images.shape == (4, 3, 6, 8)
    assert batch.images[:, 0, 0, 0].tolist() == batch.index.tolist()
    assert batch.masks is not None
    assert batch.masks[:, 0, 0].tolist() == [i % 3 for i in batch.index.tolist()]


def test_images_that_a_policy_is_not_for_stay_as_they_are():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, 24, 32), dtype=np.uint8) for _ in range(8)]
    masks = [rng.integers(0, 3, (24, 32), dtype=np.uint8) for _ in range(8)]
    policy = replace(
        PRESETS["strong"], quarter_turns=True, elastic_px=4.0, grid_distortion=0.3,
        match=0.9, match_to=np.sort(rng.integers(0, 256, (5, 3, 256)).astype(float), axis=2),
    )  # fmt: skip
    changed = np.arange(8) % 2 == 0
    loader = TrainLoader(
        pack_arrays(images, masks), list(range(8)), batch_size=8, policy=policy, crop_px=(24, 32), changed=changed
    )
    for step in range(3):
        batch = loader.batch(step)
        for image, mask, i in zip(batch.images.numpy(), batch.masks.numpy(), batch.index.tolist(), strict=True):
            same_image, same_mask = (image == images[i]).all(), (mask == masks[i]).all()
            assert (same_image, same_mask) == (not changed[i], not changed[i])


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 23])
def test_every_pass_draws_each_image_once_and_every_batch_is_full(batch_size):
    indices = [1, 2, 5, 7, 11, 13, 17]
    loader = train_loader(numbered(20), indices, batch_size=batch_size)
    stream = rows(loader, 14)[: 7 * (14 * batch_size // 7)].reshape(-1, 7)
    assert (np.sort(stream, axis=1) == indices).all()
    assert len(stream) < 3 or (stream[0] != stream[1]).any() or (stream[1] != stream[2]).any()


def test_an_epoch_is_about_one_draw_an_image():
    assert [len(train_loader(numbered(n), list(range(n)), batch_size=4)) for n in (1, 4, 5, 7, 40)] == [1, 1, 1, 2, 10]


def test_epochs_go_on_where_the_last_one_ended():
    loader = train_loader(numbered(10), list(range(10)), preset="strong")
    epochs = [list(loader) for _ in range(3)]
    fresh = train_loader(numbered(10), list(range(10)), preset="strong")
    assert [len(epoch) for epoch in epochs] == [2, 2, 2]
    for step, batch in enumerate(batch for epoch in epochs for batch in epoch):
        assert same(batch, fresh.batch(step))


def test_a_resumed_loader_gives_the_batches_that_were_to_come():
    pack, indices = numbered(30), list(range(30))
    loader = train_loader(pack, indices, preset="strong")
    epoch = iter(loader)
    for _ in range(3):
        next(epoch)
    state = loader.state_dict()
    other = train_loader(pack, indices, preset="strong")
    other.load_state_dict(state)
    pairs = list(zip(epoch, other, strict=True))
    assert len(pairs) == len(loader) - 3
    assert all(same(*pair) for pair in pairs)


@pytest.mark.parametrize(("change", "name"), [({"seed": 1}, "seed"), ({"batch_size": 5}, "batch_size")])
def test_another_recipe_cannot_resume(change, name):
    state = train_loader(numbered(9), list(range(9))).state_dict()
    with pytest.raises(RunError, match=name):
        train_loader(numbered(9), list(range(9)), **change).load_state_dict(state)


def test_seeds_differ():
    pack = numbered(30)
    assert (
        rows(train_loader(pack, list(range(30)), seed=1), 5) != rows(train_loader(pack, list(range(30)), seed=2), 5)
    ).any()


def test_weights_give_each_image_its_share_of_every_pass():
    weights = np.ones(40)
    weights[:4] = 3
    loader = train_loader(numbered(40), list(range(40)), weights=weights)
    passes = rows(loader, 200).reshape(20, 40)
    counts = np.stack([np.bincount(drawn, minlength=40) for drawn in passes])
    expected = 40 * weights / weights.sum()
    assert (counts >= np.floor(expected)).all()
    assert (counts <= np.ceil(expected)).all()
    np.testing.assert_allclose(counts[:, :4].mean(), expected[0], atol=0.15)


@pytest.mark.parametrize("weights", [np.ones(3), -np.ones(4), np.zeros(4), np.full(4, np.nan)])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(DataError, match="weights"):
        train_loader(numbered(4), [0, 1, 2, 3], weights=weights)


def test_images_to_train_on_need_masks():
    pack = pack_arrays([np.zeros((3, 6, 8), np.uint8)] * 2, [np.zeros((6, 8), np.uint8), None], ids=["a", "b"])
    with pytest.raises(DataError, match="'b' has no mask"):
        train_loader(pack, [0, 1])
    with pytest.raises(DataError, match="no image to train on"):
        train_loader(pack, [])


def test_working_ahead_changes_nothing():
    pack, indices = numbered(30), list(range(30))
    plain = train_loader(pack, indices, preset="strong")
    ahead = PrefetchLoader(train_loader(pack, indices, preset="strong"))
    for _ in range(2):
        assert all(same(*pair) for pair in zip(plain, ahead, strict=True))
        assert ahead.state_dict() == plain.state_dict()


def test_working_ahead_stops_and_resumes_with_its_reader():
    pack, indices = numbered(30), list(range(30))
    ahead = PrefetchLoader(train_loader(pack, indices))
    epoch = iter(ahead)
    first = [next(epoch) for _ in range(2)]
    epoch.close()
    assert ahead.state_dict()["step"] == 2
    plain = list(train_loader(pack, indices))
    assert all(same(*pair) for pair in zip([*first, *ahead], plain, strict=True))


def test_faults_of_the_background_reach_the_reader(monkeypatch):
    ahead = PrefetchLoader(train_loader(numbered(8), list(range(8))))

    def broken(self: TrainLoader, step: int) -> Batch:
        raise DataError(f"step {step} is broken")

    monkeypatch.setattr(TrainLoader, "batch", broken)
    with pytest.raises(DataError, match="step 0 is broken"):
        next(iter(ahead))


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_of_several_processes_join_to_the_batch_of_one(processes):
    pack, indices = numbered(30), list(range(30))
    whole = train_loader(pack, indices, batch_size=7, preset="strong")
    shares = [whole.share(rank, of=processes) for rank in range(processes)]
    assert whole.state_dict() == shares[-1].state_dict()
    for parts in zip(*shares, strict=True):
        batch = next(iter(whole))
        images, masks, index = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("images", "masks", "index")
        )
        assert same(Batch(images, masks, index), batch)
        assert torch.equal(index, batch.index)
        assert max(len(part.index) for part in parts) - min(len(part.index) for part in parts) <= 1


def test_more_processes_than_images_in_a_batch_are_refused():
    with pytest.raises(RecipeError, match="batches of 4 images are too few for 5 processes"):
        train_loader(numbered(9), list(range(9)), batch_size=4).share(0, of=5)


def mixed() -> Pack:
    sizes = [(4, 6), (8, 8), (4, 6), (4, 6), (8, 8), (4, 6), (5, 5)]
    images = [np.full((1, *size), i, dtype=np.uint8) for i, size in enumerate(sizes)]
    masks = [None if i == 5 else np.full(size, i, dtype=np.uint8) for i, size in enumerate(sizes)]
    return pack_arrays(images, masks)


def test_evaluation_shows_every_image_once_at_its_own_size():
    pack = mixed()
    loader = EvalLoader(pack, [6, 5, 4, 3, 2, 1, 0], batch_size=2)
    batches = list(loader)
    assert len(loader) == len(batches)
    assert sorted(int(i) for batch in batches for i in batch.index) == list(range(7))
    for batch in batches:
        assert 1 <= len(batch.index) <= 2
        for n, i in enumerate(batch.index.tolist()):
            np.testing.assert_array_equal(batch.images[n].numpy(), pack.image(i))
            assert (batch.masks is None) == (i == 5)
            if batch.masks is not None:
                np.testing.assert_array_equal(batch.masks[n].numpy(), pack.mask(i))
    assert [batch.index.tolist() for batch in EvalLoader(pack, [], batch_size=2)] == []


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_several_processes_have_the_batches_of_one_each_once(processes):
    pack, indices = mixed(), [6, 5, 4, 3, 2, 1, 0]
    whole = EvalLoader(pack, indices, batch_size=2)
    shares = [whole.share(rank, of=processes) for rank in range(processes)]
    dealt = [batch.index.tolist() for share in shares for batch in share]
    assert sorted(dealt) == sorted(batch.index.tolist() for batch in whole)
    assert sum(len(share) for share in shares) == len(whole)
    assert {share.count for share in shares} == {7}


def test_large_images_come_in_small_batches(monkeypatch):
    monkeypatch.setattr(loader_module, "MAX_BATCH_PIXELS", 100)
    batches = [len(batch.index) for batch in EvalLoader(numbered(7), list(range(7)), batch_size=8)]
    assert batches == [2, 2, 2, 1]
    monkeypatch.setattr(loader_module, "MAX_BATCH_PIXELS", 10)
    assert [len(batch.index) for batch in EvalLoader(numbered(3), [0, 1, 2], batch_size=8)] == [1, 1, 1]


def large(rng: np.random.Generator) -> Pack:
    """Two images that are cut into tiles, the second unlabelled, and one that is not."""
    images = [rng.integers(0, 256, (2, *size), dtype=np.uint8) for size in ((150, 210), (130, 100), (20, 30))]
    masks = [rng.choice(np.array([0, 1, 2, 255], dtype=np.uint8), image.shape[1:]) for image in images]
    return pack_arrays(images, [masks[0], None, masks[2]])


def test_tiles_of_a_large_image_show_each_labelled_pixel_once(monkeypatch, rng):
    monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", 5000)
    pack = large(rng)
    loader = EvalLoader(pack, [0, 1, 2], batch_size=3, tile_px=96)
    batches = list(loader)
    assert len(batches) == len(loader) > 3
    assert loader.count == 3
    assert sum(batch.weight for batch in batches) == pytest.approx(3)
    for i in range(3):
        own = [batch for batch in batches if batch.index[0] == i]
        assert sum(batch.weight for batch in own) == pytest.approx(1)
        assert all((batch.share is None) == (i == 2) for batch in own)
        assert all((batch.masks is None) == (i == 1) for batch in own)
        assert all(len(batch.index) == len(batch.images) <= 3 for batch in own)
    shown = torch.cat([batch.masks.flatten() for batch in batches if batch.index[0] == 0])
    np.testing.assert_array_equal(torch.bincount(shown, minlength=256)[:255], pack.class_pixels[0, :255])
    assert len(list(EvalLoader(pack, [0, 1, 2], batch_size=3, tile_px=None))) == 3


def test_scores_and_mean_losses_of_tiles_are_those_of_the_image(monkeypatch, rng):
    pack = large(rng)
    loss = build_loss("ce", num_classes=3)
    weights = torch.tensor(rng.normal(size=(3, 2, 1, 1)), dtype=torch.float32)
    sums = []
    for limit in (5000, 10**9):
        monkeypatch.setattr("segwright.data.tiles.LARGE_IMAGE_PX", limit)
        total, counts = 0.0, torch.zeros(3, 3, dtype=torch.int64)
        for batch in EvalLoader(pack, [0, 2], batch_size=2, tile_px=64):
            logits = torch.nn.functional.conv2d(batch.images.float() / 255, weights)
            total += float(loss(logits, batch.masks)) * batch.weight
            counts += confusion_per_image(logits.argmax(1), batch.masks, num_classes=3).sum(0)
        sums.append((total, counts))
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-5)
    assert torch.equal(sums[0][1], sums[1][1])


def test_batches_of_one_size_are_even():
    sizes = [len(batch.index) for batch in EvalLoader(numbered(9), list(range(9)), batch_size=8)]
    assert sizes == [5, 4]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_path_delivers_the_same_images():
    pack, indices = numbered(12), list(range(12))
    resident = TrainLoader(pack, indices, batch_size=4, policy=PRESETS["none"], crop_px=(6, 8), device="cuda")
    batch, plain = resident.batch(3), train_loader(pack, indices).batch(3)
    assert torch.equal(batch.images.cpu(), plain.images)
    assert batch.masks is not None
    assert torch.equal(batch.masks.cpu(), plain.masks)
