"""Mixing moves pixels with their labels: every pixel stays that of one image, and all chance is in the draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segwright.augment.mix import MIXINGS, MixDraw, MixPolicy, _mix_on_device, draw_mix, mix
from segwright.errors import RecipeError
from segwright.types import IGNORE_INDEX

LABELS = np.array([0, 1, 2, 7, 9, IGNORE_INDEX])


def batch(rng: np.random.Generator, count: int, size: tuple[int, int], *, channels: int = 2, dtype=np.uint8):
    """Images whose first channel is the label and whose second is the number of the image; channels last in memory."""
    masks = np.kron(rng.choice(LABELS, (count, -(-size[0] // 4), -(-size[1] // 4))), np.ones((1, 4, 4), dtype=np.int64))
    masks = np.ascontiguousarray(masks[:, : size[0], : size[1]])
    pictures = np.zeros((count, *size, channels), dtype=dtype)
    pictures[..., 0], pictures[..., 1] = masks, np.arange(count)[:, None, None]
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(masks)


def mixed(images: torch.Tensor, masks: torch.Tensor, parameters: MixDraw) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixed on the CPU, after the way of other devices was seen to do the same."""
    copies = images.clone(memory_format=torch.preserve_format), masks.clone()
    mix(*copies, parameters)
    if images.dtype != torch.uint16:
        others = images.clone(), masks.clone()
        if len(parameters.blended):
            _mix_on_device(*others, parameters)
        assert torch.equal(others[0], copies[0])
        assert torch.equal(others[1], copies[1])
    return copies


@given(
    count=st.integers(1, 7),
    size=st.tuples(st.integers(3, 30), st.integers(3, 30)),
    shares=st.sampled_from([(0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (0.3, 0.3)]),
    kind=st.sampled_from([(2, np.uint8), (5, np.uint8), (2, np.float32), (3, np.uint16)]),
    seed=st.integers(0, 2**31),
)
def test_every_pixel_comes_with_its_label_from_the_image_or_its_partner(count, size, shares, kind, seed):
    rng = np.random.default_rng(seed)
    images, masks = batch(rng, count, size, channels=kind[0], dtype=kind[1])
    parameters = draw_mix(MixPolicy(cutmix=shares[0], classmix=shares[1]), count, crop_px=size, rng=rng)
    pictures, labels = (part.numpy() for part in mixed(images, masks, parameters))
    np.testing.assert_array_equal(pictures[:, 0], labels)
    sources = np.stack([np.arange(count), parameters.partner])
    came_from = pictures[:, 1].astype(np.int64)
    assert (came_from == sources[0][:, None, None]).any(axis=0).shape == size
    assert ((came_from == sources[0][:, None, None]) | (came_from == sources[1][:, None, None])).all()
    rows, columns = np.mgrid[: size[0], : size[1]]
    np.testing.assert_array_equal(labels, masks.numpy()[came_from, rows, columns])
    taken = (came_from != sources[0][:, None, None]) & (parameters.partner != np.arange(count))[:, None, None]
    for n in range(count):
        other = labels[n][taken[n]]
        if parameters.by_class[n]:
            assert IGNORE_INDEX not in other
            shown = np.setdiff1d(masks[parameters.partner[n]].numpy(), IGNORE_INDEX)
            assert len(np.unique(other)) == len(shown) // 2
            # A chosen class comes whole.
            assert taken[n].sum() == np.isin(masks[parameters.partner[n]].numpy(), other).sum()
        else:
            top, left, bottom, right = parameters.rectangle[n]
            assert taken[n].sum() == taken[n][top:bottom, left:right].sum() == (bottom - top) * (right - left)


def test_shares_of_zero_change_and_draw_nothing(rng):
    images, masks = batch(rng, 4, (8, 8))
    parameters = draw_mix(MixPolicy(), 4, crop_px=(8, 8), rng=rng)
    assert len(parameters.blended) == 0
    assert parameters.objects.sum() == 0
    assert parameters.paste is None
    after = mixed(images, masks, parameters)
    assert torch.equal(after[0], images)
    assert torch.equal(after[1], masks)


def test_a_single_image_has_no_partner(rng):
    assert len(draw_mix(MixPolicy(cutmix=1.0), 1, crop_px=(8, 8), rng=rng).blended) == 0


def test_the_draw_is_as_often_and_as_large_as_asked():
    rng = np.random.default_rng(1)
    policy = MixPolicy(cutmix=0.3, classmix=0.2, copy_paste=0.4, paste_objects=3)
    draws = [draw_mix(policy, 20, crop_px=(100, 200), rng=rng) for _ in range(200)]
    by_rectangle = np.stack([draw.rectangle[:, 2] > draw.rectangle[:, 0] for draw in draws])
    assert abs(by_rectangle.mean() - 0.3) < 0.03
    assert abs(np.mean([draw.by_class for draw in draws]) - 0.2) < 0.03
    assert not (by_rectangle & np.stack([draw.by_class for draw in draws])).any()
    counts = np.bincount(np.concatenate([draw.objects for draw in draws]), minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.6, 0.4 / 3, 0.4 / 3, 0.4 / 3], atol=0.03)
    offsets = np.concatenate([(draw.partner - np.arange(20)) % 20 for draw in draws])
    assert set(offsets) == set(range(1, 20))


def test_rectangles_have_the_share_and_the_form_of_the_paper():
    """Without the cut at the border the share is uniform and the form that of the image."""
    rng = np.random.default_rng(2)
    edges = np.concatenate(
        [draw_mix(MixPolicy(cutmix=1.0), 50, crop_px=(400, 800), rng=rng).rectangle for _ in range(60)]
    )
    inside = (edges[:, :2] > 0).all(axis=1) & (edges[:, 2:] < [400, 800]).all(axis=1)
    height, width = (edges[:, 2:] - edges[:, :2]).T
    assert abs(width - 2 * height)[inside].max() <= 3
    assert (height * width / 320_000).max() > 0.8
    assert edges.min() == 0
    assert (edges.max(axis=0) <= [400, 800, 400, 800]).all()


@given(count=st.integers(2, 9), processes=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_a_part_is_mixed_like_the_whole(count, processes, seed):
    rng = np.random.default_rng(seed)
    images, masks = batch(rng, count, (9, 11))
    policy = MixPolicy(cutmix=0.4, classmix=0.4, copy_paste=0.5)
    parameters = draw_mix(policy, count, crop_px=(9, 11), rng=rng)
    whole = mixed(images, masks, parameters)
    for rank in range(min(processes, count)):
        mine = np.arange(count)[rank::processes]
        needed = parameters.needed(mine)
        np.testing.assert_array_equal(needed[: len(mine)], mine)
        assert len(set(needed)) == len(needed)
        part = parameters.part(needed, mixed=len(mine))
        np.testing.assert_array_equal(part.objects, parameters.objects[needed])
        pictures = images.permute(0, 2, 3, 1)[needed].contiguous().permute(0, 3, 1, 2)
        own = mixed(pictures, masks[needed], part)
        assert torch.equal(own[0][: len(mine)], whole[0][mine])
        assert torch.equal(own[1][: len(mine)], whole[1][mine])


@pytest.mark.parametrize(
    ("values", "names"),
    [({"cutmix": 0.6, "classmix": 0.5}, "mix.classmix"), ({"paste_scale": (2.0, 1.0)}, "mix.paste_scale")],
)
def test_policies_that_contradict_themselves_are_refused(values, names):
    with pytest.raises(RecipeError, match=names):
        MixPolicy(**values)


def test_objects_may_stand_on_the_named_classes_or_all_but_their_own_and_never_on_void():
    assert np.flatnonzero(MixPolicy(paste_onto=(1, 3), paste_labels=(2,)).allowed).tolist() == [1, 3]
    free = MixPolicy(paste_labels=(2,)).allowed
    assert np.flatnonzero(~free).tolist() == [2, IGNORE_INDEX]


def test_the_table_names_the_keys_of_the_policy():
    assert set(MIXINGS) <= set(MixPolicy.__dataclass_fields__)
    assert all(line and "https://arxiv.org/" in paper for line, paper in MIXINGS.values())
