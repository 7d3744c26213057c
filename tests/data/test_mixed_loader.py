"""Mixed batches are functions of seed and step, alike in every process, and show no label in a wrong place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from segwright.augment import PRESETS, Policy
from segwright.augment.mix import MixPolicy
from segwright.data.loader import TrainLoader
from segwright.data.objects import find_objects
from segwright.data.pack import Pack, pack_arrays
from segwright.data.prefetch import PrefetchLoader
from segwright.errors import RecipeError
from segwright.tensors import Batch

RARE = 2
FLAT = Policy(flip_horizontal=0.5, quarter_turns=True)
ALL = MixPolicy(cutmix=0.4, classmix=0.4, copy_paste=0.7, paste_labels=(RARE,), paste_feather_px=0.0)


def scene(count: int, *, size: tuple[int, int] = (40, 40), dtype=np.uint8) -> Pack:
    """Two classes and void in patches, an object of a third in every other image; an image shows its labels."""
    rng = np.random.default_rng(5)
    masks = []
    for n in range(count):
        mask = (ndimage.gaussian_filter(rng.standard_normal(size), 3) > 0).astype(np.uint8)
        mask[:4, :6] = 255
        if n % 2 == 0:
            row, column = rng.integers(8, 30, 2)
            mask[row : row + 6, column : column + 4] = RARE
            mask[row + 2, column : column + 6] = RARE
        masks.append(mask)
    return pack_arrays([np.stack([mask, 255 - mask]).astype(dtype) for mask in masks], masks)


def loaders(pack: Pack, *, policy: Policy = FLAT, batch_size: int = 6) -> tuple[TrainLoader, TrainLoader]:
    """Without and with all kinds of mixing."""
    rows = np.arange(len(pack))
    plain = TrainLoader(pack, rows, batch_size=batch_size, policy=policy, crop_px=(24, 24), seed=3)
    objects = find_objects(pack, rows, labels=(RARE,))
    return plain, plain.centred_on(objects, share=0.5).mixed(ALL, objects=objects)


def same(first: Batch, second: Batch) -> bool:
    assert first.masks is not None
    assert second.masks is not None
    return torch.equal(first.images, second.images) and torch.equal(first.masks, second.masks)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_pixel_keeps_its_label_through_all_of_it(dtype):
    _, mixed = loaders(scene(9, dtype=dtype))
    for step in range(12):
        batch = mixed.batch(step)
        assert batch.masks is not None
        images, masks = np.rint(batch.images.numpy()).astype(np.int64), batch.masks.numpy()
        np.testing.assert_array_equal(images[:, 0], masks)
        np.testing.assert_array_equal(images[:, 1], 255 - masks)
        assert set(np.unique(masks)) <= {0, 1, RARE, 255}


def test_pasting_and_centring_show_more_of_the_rare_class():
    plain, mixed = loaders(scene(20))
    shares = [
        np.mean([(loader.batch(step).masks == RARE).float().mean().item() for step in range(20)])
        for loader in (plain, mixed)
    ]
    assert shares[1] > 1.3 * shares[0]


@pytest.mark.parametrize("processes", [2, 3, 6])
def test_shares_of_several_processes_join_to_the_batch_of_one(processes):
    _, mixed = loaders(scene(11), policy=PRESETS["strong"])
    shares = [mixed.share(rank, of=processes) for rank in range(processes)]
    for step in range(6):
        parts = [share.batch(step) for share in shares]
        whole = mixed.batch(step)
        joined = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "masks", "index"))
        images, masks, index = joined
        assert same(Batch(images, masks, index), whole)
        assert torch.equal(index, whole.index)


def test_a_batch_is_the_same_whenever_and_wherever_it_is_asked_for():
    _, mixed = loaders(scene(11), policy=PRESETS["strong"])
    batches = [mixed.batch(step) for step in range(5)]
    _, other = loaders(scene(11), policy=PRESETS["strong"])
    assert all(same(batches[step], other.batch(step)) for step in (3, 0, 4, 2, 1))
    assert not same(batches[0], batches[1])
    ahead = PrefetchLoader(loaders(scene(11), policy=PRESETS["strong"])[1])
    assert all(same(*pair) for pair in zip(ahead, batches[: len(ahead)], strict=True))


def test_shares_of_zero_change_nothing_bit_for_bit():
    pack = scene(8)
    plain, _ = loaders(pack, policy=PRESETS["strong"])
    objects = find_objects(pack, np.arange(8), labels=(RARE,))
    idle = plain.centred_on(objects, share=0.0).mixed(MixPolicy(), objects=objects)
    assert all(same(plain.batch(step), idle.batch(step)) for step in range(4))


def test_the_pack_is_left_as_it_was():
    pack = scene(8)
    before = pack.image_values.copy(), pack.mask_values.copy()
    _, mixed = loaders(pack)
    for step in range(6):
        mixed.batch(step)
    np.testing.assert_array_equal(pack.image_values, before[0])
    np.testing.assert_array_equal(pack.mask_values, before[1])


def test_batches_that_cannot_be_mixed_are_refused():
    pack = scene(4)
    with pytest.raises(RecipeError, match="batch, which holds one"):
        loaders(pack, batch_size=1)
    none = find_objects(pack, np.array([1, 3]), labels=(RARE,))
    assert len(none) == 0
    with pytest.raises(RecipeError, match="finds no object"):
        loaders(pack)[0].mixed(ALL, objects=none)


def test_images_that_are_kept_on_a_device_give_the_same_batches():
    """The way of a GPU, walked on the CPU."""
    pack = scene(9)
    _, mixed = loaders(pack)
    on_stack = mixed.share(0, of=1)
    stack = [np.stack([read(i) for i in range(9)]) for read in (pack.image, pack.mask)]
    on_stack._stack = (torch.from_numpy(stack[0]), torch.from_numpy(stack[1]))
    for step in range(6):
        first, second = mixed.batch(step), on_stack.batch(step)
        assert torch.equal(first.masks, second.masks)
        assert (first.images.int() - second.images.int()).abs().max() <= 1


def test_crops_on_objects_show_nothing_beyond_an_image_that_zoom_filled():
    pack, rows = scene(6), np.arange(6)
    policy = Policy(rotate_degrees=40.0, elastic_px=3.0, rotate_fill="zoom")
    plain = TrainLoader(pack, rows, batch_size=6, policy=policy, crop_px=(24, 24), seed=3)
    loader = plain.centred_on(find_objects(pack, rows, labels=(0, 1)), share=1.0)
    down, across = np.mgrid[:24, :24]
    pixels = np.stack([across, down, np.ones_like(down)]).reshape(3, -1)
    for step in range(20):
        drawn = loader._draw(rows, step=step)
        assert drawn.distortion is not None
        read = (drawn.matrices @ pixels).reshape(6, 2, 24, 24) + drawn.distortion.fields((24, 24)).transpose(0, 3, 1, 2)
        assert read.min() > -1e-4
        assert read.max() < 39 + 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_batches():
    pack = scene(9)
    rows, objects = np.arange(9), find_objects(pack, np.arange(9), labels=(RARE,))
    on_cpu, on_gpu = (
        TrainLoader(pack, rows, batch_size=6, policy=FLAT, crop_px=(24, 24), seed=3, device=device)
        .centred_on(objects, share=0.5)
        .mixed(ALL, objects=objects)
        for device in ("cpu", "cuda")
    )
    for step in range(6):
        first, second = on_cpu.batch(step), on_gpu.batch(step)
        assert first.masks is not None
        assert second.masks is not None
        assert torch.equal(first.masks, second.masks.cpu())
        assert (first.images.int() - second.images.cpu().int()).abs().max() <= 1
