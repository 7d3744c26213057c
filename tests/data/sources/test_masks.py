"""How masks are coded is found by looking at them; what fits no class is refused by file and value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.data.card import write_card
from segwright.data.sources import Source, open_loosely, open_source
from segwright.data.sources.classes import code_of, color_of, default_colors
from segwright.data.sources.masks import MaskCoding
from segwright.errors import DataError, MaskError
from segwright.files import write_mask

RED, GREEN, BLACK = (200, 0, 0), (0, 200, 0), (0, 0, 0)


def blocks(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A mask of 16 x 8n pixels: a block of 8 columns for each value."""
    return np.repeat(np.array(values, dtype=dtype), 8)[None].repeat(16, axis=0)


def painted(*colors: tuple[int, ...]) -> np.ndarray:
    return np.array(colors, dtype=np.uint8)[blocks(*range(len(colors)))]


def pairs(root: Path, *masks: np.ndarray | Image.Image, ending: str = "png") -> Path:
    """A source with these masks, `00`, `01`, ..., and an image for each."""
    for name in ("images", "masks"):
        (root / name).mkdir()
    for place, mask in enumerate(masks):
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        picture.save(root / f"masks/{place:02d}.{ending}")
        Image.new("L", picture.size, 7).save(root / f"images/{place:02d}.png")
    return root


def read(source: Source) -> list[list[int]]:
    """The first row of each mask, one number a block."""
    return [source.read_mask(sample)[0, ::8].tolist() for sample in source.samples]


@pytest.mark.parametrize(
    ("stored", "labels", "kind", "values", "void"),
    [
        ([0, 1, 2], [0, 1, 2], "index", (0, 1, 2), (255,)),
        ([0, 1, 255], [0, 1, 255], "index", (0, 1), (255,)),
        ([0, 255], [0, 1], "values", (0, 255), ()),
        ([0, 128, 255], [0, 1, 2], "values", (0, 128, 255), ()),
        ([0, 85, 170, 255], [0, 1, 2, 3], "values", (0, 85, 170, 255), ()),
        ([1, 2, 3], [0, 1, 2], "values", (1, 2, 3), (255,)),
        ([7, 50, 200, 255], [0, 1, 2, 255], "values", (7, 50, 200), (255,)),
        ([0, 1, 3], [0, 1, 3], "index", (0, 1, 2, 3), (255,)),
        ([0, 40, 41], [0, 1, 2], "values", (0, 40, 41), (255,)),
    ],
)
def test_numbers_are_told_by_their_values(tmp_path, stored, labels, kind, values, void):
    source = open_source(pairs(tmp_path, blocks(*stored)))
    assert source.coding == MaskCoding(kind, values, void)
    assert read(source) == [labels]
    assert source.classes.names == tuple(f"class {label}" for label in range(len(values)))
    assert bool(source.notes) == (kind == "values" or len(values) > len(set(labels) - {255}))


def test_one_bit_masks(tmp_path):
    source = open_source(pairs(tmp_path, Image.fromarray(blocks(0, 255)).convert("1")))
    assert source.coding == MaskCoding("index", (0, 1))
    assert read(source) == [[0, 1]]


def test_sixteen_bit_masks(tmp_path):
    source = open_source(pairs(tmp_path, blocks(0, 1000, 40000, dtype=np.uint16)))
    assert source.coding.values == (0, 1000, 40000)
    assert read(source) == [[0, 1, 2]]


def test_gray_saved_as_colour_stays_numbers(tmp_path):
    source = open_source(pairs(tmp_path, painted((0, 0, 0), (1, 1, 1), (2, 2, 2)), blocks(2, 1, 0)))
    assert read(source) == [[0, 1, 2], [2, 1, 0]]


def test_a_palette_brings_indices_and_colours(tmp_path):
    (tmp_path / "images").mkdir()
    for place, values in enumerate(([0, 1], [2, 255])):
        write_mask(tmp_path / f"masks/{place}.png", blocks(*values), np.array([BLACK, RED, GREEN]))
        Image.new("L", (16, 16)).save(tmp_path / f"images/{place}.png")
    source = open_source(tmp_path)
    assert read(source) == [[0, 1], [2, 255]]
    assert source.classes.colors == (BLACK, RED, GREEN)


def test_palettes_that_differ_are_told_by_colour(tmp_path):
    (tmp_path / "images").mkdir()
    for place, table in enumerate(([BLACK, RED], [RED, BLACK])):
        write_mask(tmp_path / f"masks/{place}.png", blocks(0, 1), np.array(table))
        Image.new("L", (16, 16)).save(tmp_path / f"images/{place}.png")
    source = open_source(tmp_path)
    assert source.coding == MaskCoding("rgb", (0, code_of(RED)), ())
    assert read(source) == [[0, 1], [1, 0]]
    assert "palettes differ" in source.notes[0]


@pytest.mark.parametrize("alpha", [(), (255,), (0,)])
def test_colours_with_and_without_a_table(tmp_path, alpha):
    root = pairs(tmp_path, painted((*GREEN, *alpha), (*RED, *alpha), (*BLACK, *alpha)))
    found = open_source(root)
    assert found.classes.colors == (BLACK, GREEN, RED)  # by rising 0xRRGGBB
    assert read(found) == [[1, 2, 0]]
    assert "told by colour" in found.notes[0]
    given = open_source(root, names=("red", "black", "green", "unseen"), colors=[RED, BLACK, GREEN, (9, 9, 9)])
    assert read(given) == [[2, 0, 1]]
    assert given.classes.num_classes == 4


def test_a_void_colour(tmp_path):
    root = pairs(tmp_path, painted(RED, GREEN, BLACK))
    assert read(open_source(root, void_values=(code_of(RED),))) == [[255, 1, 0]]
    assert read(open_source(root, void_values=(0,))) == [[1, 0, 255]]


def test_blue_is_no_void_by_accident(tmp_path):
    source = open_source(pairs(tmp_path, painted((0, 0, 255), RED)))  # 0x0000FF is 255
    assert read(source) == [[0, 1]]


def test_colours_named_wrongly(tmp_path):
    root = pairs(tmp_path, painted(RED, GREEN), painted(RED, BLACK))
    with pytest.raises(
        MaskError, match=r"masks/01.png: holds colour \(0, 0, 0\) = 0x000000, which belongs to no class"
    ):
        open_source(root, colors=[RED, GREEN])
    with pytest.raises(MaskError, match=r"hold 3 colours .* for 2 classes"):
        open_source(root, names=("a", "b"))


def test_colours_beside_numbers_are_refused(tmp_path):
    with pytest.raises(MaskError, match=r"masks/01.png: holds colours, while .*masks/00.png holds numbers"):
        open_source(pairs(tmp_path, blocks(0, 1), painted(RED, GREEN)))


def test_values_given_by_the_user(tmp_path):
    root = pairs(tmp_path, blocks(7, 26, 0), blocks(26, 255, 7))
    source = open_source(root, names=("car", "road"), mask_values=(26, 7), void_values=(0, 255))
    assert read(source) == [[1, 0, 255], [0, 255, 1]]
    with pytest.raises(MaskError, match=r"masks/00.png: holds value 0, which belongs to no class"):
        open_source(root, mask_values=(26, 7))


def test_several_values_may_be_one_class(tmp_path):
    root = pairs(tmp_path, blocks(0, 1, 2, 7), blocks(7, 4, 255, 1))
    given = ((1, 4), 0, (2, 7))
    for source in (
        open_source(root, names=("rock", "sky", "soil"), mask_values=given),
        open_loosely(root, names=("rock", "sky", "soil"), mask_values=given, progress=False).source,
    ):
        assert read(source) == [[1, 0, 2, 2], [2, 0, 255, 0]]
        assert source.classes.names == ("rock", "sky", "soil")
        assert (source.coding.values, source.coding.of_classes) == ((1, 0, 2), given)
    write_card(tmp_path / "data.yaml", source.as_card())
    assert read(open_source(tmp_path / "data.yaml")) == [[1, 0, 2, 2], [2, 0, 255, 0]]
    with pytest.raises(MaskError, match="value 7, which belongs to no class"):
        open_source(root, mask_values=((1, 4), 0, 2))
    with pytest.raises(DataError, match="value 2 stands for two classes"):
        open_source(root, mask_values=((1, 4), (0, 2), (2, 7)))
    with pytest.raises(DataError, match="2 class names for 3 mask values"):
        open_source(root, names=("a", "b"), mask_values=given)


def test_several_colours_may_be_one_class(tmp_path):
    given = ((code_of(RED), code_of(GREEN)), code_of(BLACK))
    source = open_source(pairs(tmp_path, painted(GREEN, RED, BLACK)), mask_values=given, void_values=())
    assert read(source) == [[0, 0, 1]]
    assert source.classes.colors == (RED, BLACK)


def test_a_value_that_no_class_owns_is_named_with_its_file(tmp_path):
    root = pairs(tmp_path, blocks(0, 1), blocks(0, 7), blocks(0, 1))
    with pytest.raises(MaskError, match=r"masks/01.png: holds value 7, but 2 classes are named"):
        open_source(root, names=("a", "b"))


def test_a_value_met_only_when_reading_is_named(tmp_path):
    source = open_source(pairs(tmp_path, blocks(0, 1), blocks(1, 0)), names=("a", "b"))
    Image.fromarray(blocks(0, 9)).save(tmp_path / "masks/01.png")
    assert source.read_mask(source.samples[0]).max() == 1
    with pytest.raises(MaskError, match=r"masks/01.png: 128 pixels have value 9, .*\(classes have 0, 1\)"):
        source.read_mask(source.samples[1])


def test_one_class_named_alone_is_refused(tmp_path):
    for name, values in (("a", (0, 255)), ("b", (0, 1))):
        (tmp_path / name).mkdir()
        with pytest.raises(MaskError, match=r"one class is named. Name background too"):
            open_source(pairs(tmp_path / name, blocks(*values)), names=("crack",))


def test_a_run_on_numbers_meets_black_and_white(tmp_path):
    root = pairs(tmp_path, blocks(0, 255))
    source = open_source(root, names=("ground", "crack"), mask_values=(0, 1))
    assert read(source) == [[0, 1]]
    assert source.notes == ("mask values 0, 255 are taken as classes 0 and 1",)
    with pytest.raises(MaskError, match="holds value 255"):
        open_source(root, mask_values=(0, 1), void_values=())


def test_void_is_void_where_it_is_asked_for(tmp_path):
    assert read(open_source(pairs(tmp_path, blocks(0, 3, 1)), void_values=(3,))) == [[0, 255, 1]]


def test_masks_of_nothing_but_void(tmp_path):
    with pytest.raises(MaskError, match="nothing but void"):
        open_source(pairs(tmp_path, blocks(255, 255)))


@pytest.mark.parametrize("colored", [False, True])
def test_masks_damaged_by_jpeg_are_refused(tmp_path, colored):
    noise = np.random.default_rng(0).integers(0, 2, (64, 64))
    mask = np.array([BLACK, RED], dtype=np.uint8)[noise] if colored else (noise * 200).astype(np.uint8)
    with pytest.raises(MaskError, match="JPEG"):
        open_source(pairs(tmp_path, mask, ending="jpg"))


def test_a_few_stray_grays_of_jpeg_are_refused_too(tmp_path):
    mask = blocks(10, 90)
    mask[0, 0] = 200
    with pytest.raises(MaskError, match="JPEG"):
        open_source(pairs(tmp_path, mask, ending="jpg"))


def test_numbered_objects_are_refused(tmp_path):
    with pytest.raises(MaskError, match=r"80 different values .* numbered objects"):
        open_source(pairs(tmp_path, blocks(*range(0, 240, 3))))


def test_names_and_values_that_contradict(tmp_path):
    with pytest.raises(MaskError, match=r"belongs to no class|class names for"):
        open_source(pairs(tmp_path, blocks(0, 1, 2)), names=("a", "b", "c"), mask_values=(0, 1))


@given(
    kind=st.sampled_from(["values", "rgb"]),
    stored=st.lists(st.integers(0, 0xFFFFFF), min_size=1, max_size=40, unique=True),
    voids=st.integers(0, 3),
    small=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_coding_gives_its_labels_back(kind, stored, voids, small, seed):
    if small:
        stored = list(dict.fromkeys(value % 256 for value in stored))
    voids = min(voids, len(stored) - 1)
    void, values = tuple(stored[:voids]), tuple(stored[voids:])
    coding = MaskCoding(kind, values, void)
    labels = np.random.default_rng(seed).integers(0, len(values) + (voids > 0), (9, 7))
    labels[labels == len(values)] = 255
    raw = np.array([*values, *[0] * (255 - len(values)), *(void[:1] or (0,))])[labels]
    if kind == "rgb":
        raw = np.array([color_of(value) for value in raw.ravel().tolist()], dtype=np.uint8).reshape(9, 7, 3)
    elif small:
        raw = raw.astype(np.uint8)
    decoded = coding.decode(raw, file="m.png")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, labels)


@given(st.integers(1, 255))
def test_default_colours_are_all_different(count):
    colors = default_colors(count)
    assert len(set(colors)) == len(colors) == count
    assert [color_of(code_of(color)) for color in colors] == list(colors)


def test_values_in_between_are_read_as_the_nearest_class():
    coding = MaskCoding("values", (0, 100, 200), (255,), nearest=True)
    raw = np.array([[0, 49, 50, 51, 130, 151, 201, 227, 228, 255]], dtype=np.uint8)
    expected = [[0, 0, 0, 1, 1, 2, 2, 2, 255, 255]]
    assert coding.decode(raw, file="x").tolist() == expected
    assert coding.decode(raw.astype(np.int64), file="x").tolist() == expected
    assert MaskCoding("index", (0, 1), ()).decode(raw[:, :1], file="x").tolist() == [[0]]


@given(st.lists(st.integers(0, 0xFFFFFF), min_size=2, max_size=6, unique=True), st.integers(0, 10_000))
def test_colours_in_between_are_read_as_the_nearest_colour(codes, seed):
    raw = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    table = np.array([color_of(code) for code in codes])
    apart = ((raw[:, :, None].astype(int) - table) ** 2).sum(-1)
    found = MaskCoding("rgb", tuple(codes), (), nearest=True).decode(raw, file="x")
    chosen = np.take_along_axis(apart, found[..., None].astype(int), axis=2)[..., 0]
    np.testing.assert_array_equal(chosen, apart.min(axis=2))


@pytest.mark.parametrize("colored", [False, True])
def test_a_card_reads_soft_masks_by_the_nearest_class(tmp_path, colored):
    soft = np.array([[0, 90, 160, 255]], dtype=np.uint8).repeat(2, axis=0)
    colors = ((0, 0, 0), (255, 0, 0))
    if colored:
        soft = np.stack([soft, 0 * soft, 0 * soft], axis=-1)
    (tmp_path / "set").mkdir()
    root = pairs(tmp_path / "set", soft)
    tree = {"source": str(root), "nearest": True, "classes": ["a", "b"]}
    tree |= {"colors": colors} if colored else {"mask_values": [0, 255], "void_values": []}
    write_card(tmp_path / "card.yaml", tree)
    source = open_source(tmp_path / "card.yaml")
    assert source.coding.nearest
    assert source.read_mask(source.samples[0]).tolist() == [[0, 0, 1, 1]] * 2
    write_card(tmp_path / "again.yaml", source.as_card())
    assert open_source(tmp_path / "again.yaml").coding == source.coding
    plain = open_source(root, colors=colors, mask_values=() if colored else (0, 255), nearest=True)
    assert plain.read_mask(plain.samples[0]).tolist() == [[0, 0, 1, 1]] * 2


def test_nearest_needs_to_know_the_classes(tmp_path):
    with pytest.raises(MaskError, match="no class has a value"):
        open_source(pairs(tmp_path, blocks(0, 90, 255)), nearest=True)
