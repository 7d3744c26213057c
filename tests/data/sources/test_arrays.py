"""Arrays are understood by the words of their keys and by their shapes; nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.data.sources import Source, open_source
from segwright.errors import DataError, MaskError


@pytest.fixture
def images() -> np.ndarray:
    """Five gray pictures of 8 x 6 pixels."""
    return np.random.default_rng(1).integers(0, 256, (5, 8, 6), dtype=np.uint8)


@pytest.fixture
def masks() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 3, (5, 8, 6), dtype=np.uint8)


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def read_all(source: Source) -> tuple[np.ndarray, np.ndarray]:
    pairs = [source.read(sample) for sample in source.samples]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


@pytest.mark.parametrize(
    "keys",
    [("images", "masks"), ("x", "y"), ("X", "Y"), ("image", "label"), ("train_x", "train_y"),
     ("trainImages", "trainGT"), ("arr_0", "arr_1"), ("data", "target"), ("imgs", "segmentation")],
)  # fmt: skip
def test_two_arrays_by_their_keys(tmp_path, images, masks, keys):
    source = open_source(saved(tmp_path, **{keys[0]: images, keys[1]: masks}))
    assert [sample.id for sample in source.samples] == [f"{row:05d}" for row in range(5)]
    assert {sample.split for sample in source.samples} == {None}
    assert source.classes.names == ("class 0", "class 1", "class 2")
    got_images, got_masks = read_all(source)
    np.testing.assert_array_equal(got_images, images[:, None])
    np.testing.assert_array_equal(got_masks, masks)
    assert source.fingerprint_files() == [tmp_path / "set.npz"]


@given(
    count=st.integers(1, 4),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    channels=st.integers(1, 4),
    layout=st.sampled_from(["nhw", "nhwc", "nchw"]),
    mask_layout=st.sampled_from(["nhw", "nhw1", "n1hw"]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_every_layout_gives_the_same_pictures(tmp_path_factory, count, size, channels, layout, mask_layout, dtype):
    rng = np.random.default_rng(count)
    channels = 1 if layout == "nhw" else channels
    truth = rng.integers(0, 200, (count, channels, *size)).astype(dtype)
    labels = np.arange(count * size[0] * size[1], dtype=np.uint8).reshape(count, *size) % 2
    stored = {"nhw": truth[:, 0], "nhwc": truth.transpose(0, 2, 3, 1), "nchw": truth}[layout]
    stored_masks = {"nhw": labels, "nhw1": labels[..., None], "n1hw": labels[:, None]}[mask_layout]
    path = saved(tmp_path_factory.mktemp("layout"), images=stored, masks=stored_masks)
    got_images, got_masks = read_all(open_source(path))
    assert got_images.dtype == dtype
    np.testing.assert_array_equal(got_images, truth)
    np.testing.assert_array_equal(got_masks, labels)


def test_a_stack_of_image_and_mask_with_an_unlabelled_test_set(tmp_path, images, masks):
    path = saved(tmp_path, training_set=np.stack([images, masks], axis=1), test_set=images[:2] // 2)
    source = open_source(path)
    assert [sample.id for sample in source.samples] == [*(f"{row:05d}" for row in range(5)), "test/00000", "test/00001"]
    assert [sample.split for sample in source.samples] == [None] * 5 + ["test"] * 2
    assert [sample.mask is None for sample in source.samples] == [False] * 5 + [True] * 2
    image, mask = source.read(source.samples[3])
    np.testing.assert_array_equal(image, images[3][None])
    np.testing.assert_array_equal(mask, masks[3])
    np.testing.assert_array_equal(source.read_image(source.samples[6]), images[1][None] // 2)


def test_sides_are_kept_where_several_are_labelled(tmp_path, images, masks):
    path = saved(tmp_path, x_train=images, y_train=masks, x_val=images[:2], y_val=masks[:2], x_test=images[:1])
    samples = open_source(path).samples
    assert [(one.id, one.split) for one in samples[4:]] == [
        ("train/00004", "train"), ("val/00000", "val"), ("val/00001", "val"), ("test/00000", "test"),
    ]  # fmt: skip


def test_files_of_one_array_each(tmp_path, images, masks):
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "masks.npy", masks)
    source = open_source(tmp_path)
    np.testing.assert_array_equal(read_all(source)[1], masks)
    assert source.fingerprint_files() == [tmp_path / "images.npy", tmp_path / "masks.npy"]
    alone = open_source(tmp_path / "images.npy")
    assert not alone.labelled
    assert len(alone.samples) == 5


def test_a_folder_with_one_npz_is_that_file(tmp_path, images, masks):
    path = saved(tmp_path, images=images, masks=masks)
    assert open_source(tmp_path).samples == open_source(path).samples


def test_a_stacked_npy(tmp_path, images, masks):
    np.save(tmp_path / "all.npy", np.stack([images, masks], axis=1))
    got_images, got_masks = read_all(open_source(tmp_path / "all.npy"))
    np.testing.assert_array_equal(got_images, images[:, None])
    np.testing.assert_array_equal(got_masks, masks)


def test_two_noisy_planes_are_an_image_of_two_bands(tmp_path):
    noise = np.random.default_rng(3).integers(0, 256, (4, 2, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "bands.npy", noise)
    source = open_source(tmp_path / "bands.npy")
    assert not source.labelled
    np.testing.assert_array_equal(source.read_image(source.samples[0]), noise[0])


def test_groups_and_class_names_are_taken_along(tmp_path, images, masks):
    path = saved(
        tmp_path, images=images, masks=masks, groups=np.array([7, 7, 8, 8, 9]),
        class_names=np.array(["sky", "soil", "rock"]), camera=np.arange(3),
    )  # fmt: skip
    source = open_source(path)
    assert [sample.group for sample in source.samples] == ["7", "7", "8", "8", "9"]
    assert source.classes.names == source.own_names == ("sky", "soil", "rock")
    assert source.notes == ("arrays that are not used: camera",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16, np.bool_])
def test_masks_of_whole_numbers_of_any_type(tmp_path, images, masks, dtype):
    masks = masks % 2
    source = open_source(saved(tmp_path, images=images, masks=masks.astype(dtype)))
    np.testing.assert_array_equal(read_all(source)[1], masks)


@pytest.mark.parametrize(
    ("dtype", "factor", "kept"),
    [(np.int64, 1, np.uint8), (np.int32, 100, np.uint16), (np.int32, -1, np.float32), (np.float64, 0.5, np.float32)],
)
def test_images_take_the_smallest_type_that_holds_them(tmp_path, images, masks, dtype, factor, kept):
    values = (images.astype(np.float64) * factor).astype(dtype)
    got, _ = read_all(open_source(saved(tmp_path, images=values, masks=masks)))
    assert got.dtype == kept
    np.testing.assert_array_equal(got[:, 0], values)


def test_truth_values_become_black_and_white(tmp_path, images, masks):
    got, _ = read_all(open_source(saved(tmp_path, images=images > 99, masks=masks)))
    np.testing.assert_array_equal(got[:, 0], np.where(images > 99, 255, 0))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_masks_with_fractions_are_refused(tmp_path, images, masks, value):
    masks = masks.astype(np.float32)
    masks[3, 2, 1] = value
    with pytest.raises(MaskError, match=f"'masks' row 3 holds {value:g}"):
        open_source(saved(tmp_path, images=images, masks=masks))


def test_images_with_gaps_are_refused_when_read(tmp_path, images, masks):
    values = images.astype(np.float32)
    values[2, 0, 0] = np.nan
    source = open_source(saved(tmp_path, images=values, masks=masks))
    source.read_image(source.samples[1])
    with pytest.raises(DataError, match=r"set.npz\[images\]\[2\]: image holds NaN"):
        source.read_image(source.samples[2])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x, y: {"images": np.array([x[0], "text"], dtype=object), "masks": y}, DataError, "Python objects"),
        (lambda x, y: {"first": x, "second": y}, DataError, r"no array of images .*first \(5, 8, 6\), second"),
        (lambda x, y: {"masks": y}, DataError, r"it holds masks \(5, 8, 6\)"),
        (lambda x, y: {"images": np.zeros((8, 6, 3), np.uint8)}, DataError, "looks like one colour image"),
        (lambda x, y: {"images": x[0], "masks": y}, DataError, r"\(8, 6\) are no images"),
        (lambda x, y: {"images": x[:0], "masks": y[:0]}, DataError, "are no images"),
        (lambda x, y: {"images": x, "masks": y[:4]}, DataError, "do not fit"),
        (lambda x, y: {"images": x, "masks": y[:, :5]}, DataError, "do not fit"),
        (lambda x, y: {"images": x, "masks": np.eye(3)[y]}, MaskError, "argmax"),
        (lambda x, y: {"images": x, "masks": y.astype(str)}, MaskError, "is of type <U"),
        (lambda x, y: {"images": x.astype(str), "masks": y}, DataError, "is of type <U"),
        (lambda x, y: {"images": x, "x": x, "masks": y}, DataError, "'x' and 'images' play|'images' and 'x' play"),
        (lambda x, y: {"images": x, "masks": y, "groups": np.arange(4)}, DataError, "for 5 images"),
        (lambda x, y: {"images": x, "train_masks": y}, DataError, "'train_masks' has no images of its side"),
    ],
)
def test_what_cannot_be_taken_is_said(tmp_path, images, masks, make, error, message):
    with pytest.raises(error, match=message):
        open_source(saved(tmp_path, **make(images, masks)))


def test_objects_in_an_npy_are_refused(tmp_path, images):
    np.save(tmp_path / "a.npy", np.array([images[0], None], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        open_source(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_damaged_files_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match=name):
        open_source(tmp_path / name)


def test_a_value_no_class_owns_is_named_with_its_row(tmp_path, images, masks):
    masks[4, 0, 0] = 9
    with pytest.raises(MaskError, match=r"set.npz\[masks\]\[4\]: holds value 9"):
        open_source(saved(tmp_path, images=images, masks=masks), names=("a", "b", "c"))


def test_masks_can_be_left_unread(tmp_path, images, masks):
    masks[0, 0, 0] = 77
    path = saved(tmp_path, images=images, masks=masks)
    source = open_source(path, masks=False)
    assert [(one.id, one.mask) for one in source.samples] == [(f"{row:05d}", None) for row in range(5)]
    assert source.notes == ()
