"""A pack holds what was decoded, is reopened without decoding, and is replaced when its files change."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.data import pack as pack_module
from segwright.data.pack import Pack, open_pack, pack_arrays
from segwright.data.pack_cache import Slot, cache_entries, cache_folder, clear_cache, find_slot
from segwright.data.packing import decode_all, neighbour_correlation
from segwright.data.sources import Source, open_source
from segwright.errors import DataError, MaskError, OutputError

SIZES = [(20, 30), (16, 16), (41, 7)]


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three RGB images with masks of labels 0..2."""
    for name in ("images", "masks"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for i, size in enumerate(SIZES):
        save(tmp_path / "photos/images" / f"p{i}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        save(tmp_path / "photos/masks" / f"p{i}.png", rng.integers(0, 3, size, dtype=np.uint8))
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def opened(photos: Path, cache: Path, *, verify: bool = False, working_size_px: int | None = None) -> Pack:
    source = open_source(photos)
    return open_pack(source, cache=cache, progress=False, verify=verify, working_size_px=working_size_px)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every time that a source is decoded."""
    seen: list[int] = []
    real = pack_module.write_pack

    def counted(source: Source, folder: Path, **others: object) -> None:
        seen.append(len(source.samples))
        real(source, folder, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(pack_module, "write_pack", counted)
    return seen


@pytest.mark.parametrize("resident", ["auto", "memory", "device", "map"])
def test_it_holds_what_the_source_reads(photos, cache, resident):
    source = open_source(photos)
    pack = open_pack(source, cache=cache, progress=False, resident=resident)
    assert pack.ids == tuple(sample.id for sample in source.samples)
    assert (pack.channels, pack.dtype, pack.notes) == (3, np.uint8, ())
    assert pack.sizes.tolist() == [list(size) for size in SIZES]
    for i, sample in enumerate(source.samples):
        image, mask = pack.image(i), pack.mask(i)
        assert mask is not None
        np.testing.assert_array_equal(image, source.read_image(sample))
        np.testing.assert_array_equal(mask, source.read_mask(sample))
        assert np.shares_memory(image, pack.image(i))
        assert not image.flags.writeable
        np.testing.assert_array_equal(pack.class_pixels[i], np.bincount(mask.ravel(), minlength=256))


def test_it_is_reopened_without_decoding(photos, cache, decodings):
    first, again = opened(photos, cache), opened(photos, cache)
    assert decodings == [3]
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.class_pixels, first.class_pixels)
    np.testing.assert_array_equal(again.noise, first.noise)


def test_a_changed_mask_is_packed_anew_and_replaces_the_old_pack(photos, cache, decodings):
    first = opened(photos, cache)
    save(photos / "masks/p1.png", np.full(SIZES[1], 2, dtype=np.uint8))
    again = opened(photos, cache)
    assert decodings == [3, 3]
    assert again.class_pixels[1, 2] == 256
    assert again.digest != first.digest
    assert len(cache_entries(cache)) == 1
    # The first pack is still whole: its memory outlives its file.
    assert first.mask(1) is not None
    assert first.mask(1).sum() != again.mask(1).sum()


def test_verify_finds_what_sizes_and_times_hide(photos, cache, decodings):
    path = photos / "images/p0.png"
    before = opened(photos, cache)
    facts, content = path.stat(), bytearray(path.read_bytes())
    other = np.full((*SIZES[0], 3), 7, dtype=np.uint8)
    save(path, other)
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert opened(photos, cache).digest == before.digest
    np.testing.assert_array_equal(opened(photos, cache, verify=True).image(0), other.transpose(2, 0, 1))
    assert decodings == [3, 3]
    opened(photos, cache, verify=True)
    assert decodings == [3, 3]


def test_damaged_packs_are_packed_anew(photos, cache, decodings):
    folder = opened(photos, cache).folder
    assert folder is not None
    for name, damage in (
        ("images.bin", b"x"),
        ("index.json", b"{"),
        ("index.npz", b"PK"),
        ("index.json", b'{"version": 0}'),
    ):
        (folder / name).write_bytes(damage)
        assert opened(photos, cache).image(0).shape == (3, *SIZES[0])
    assert len(decodings) == 5


def test_the_working_size_is_a_pack_of_its_own(photos, cache):
    full, small = opened(photos, cache), opened(photos, cache, working_size_px=20)
    assert small.sizes.tolist() == [[13, 20], [16, 16], [20, 3]]
    assert small.image_digest == full.image_digest
    assert abs(small.image(0).mean() - full.image(0).mean()) < 3
    assert set(np.unique(small.mask(0))) <= {0, 1, 2}
    np.testing.assert_array_equal(small.image(1), full.image(1))
    assert len(cache_entries(cache)) == 2


def test_a_small_mask_is_read_at_pixel_centres():
    mask = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2), 9, axis=0), 9, axis=1)
    big = pack_arrays([np.zeros((1, 18, 18), np.uint8)], [mask])
    parts = pack_module.measure(big.image(0), mask, working_size_px=6)
    assert parts.mask is not None
    np.testing.assert_array_equal(parts.mask, mask[1::3, 1::3])


def test_gray_rgb_and_rgba_become_rgb(photos, cache, rng):
    gray = rng.integers(0, 256, SIZES[0], dtype=np.uint8)
    glass = rng.integers(0, 256, (*SIZES[1], 4), dtype=np.uint8)
    save(photos / "images/p0.png", gray)
    save(photos / "images/p1.png", glass)
    pack = opened(photos, cache)
    assert pack.channels == 3
    assert "1 with 1, 1 with 3, 1 with 4" in pack.notes[0]
    np.testing.assert_array_equal(pack.image(0), np.stack([gray] * 3))
    np.testing.assert_array_equal(pack.image(1), glass[:, :, :3].transpose(2, 0, 1))
    assert pack_arrays([np.zeros((4, 5, 5), np.uint8)]).channels == 4


def test_bit_depths_become_the_deepest_by_share_of_full_scale():
    images = [np.full((1, 4, 4), 255, np.uint8), np.full((1, 4, 4), 65535, np.uint16)]
    pack = pack_arrays(images)
    assert pack.dtype == np.uint16
    assert pack.image(0).max() == 65535
    assert "uint8, uint16" in pack.notes[0]
    deepest = pack_arrays([*images, np.full((1, 4, 4), 0.5, np.float32)])
    assert deepest.dtype == np.float32
    assert [float(deepest.image(i).max()) for i in range(3)] == [1.0, 1.0, 0.5]


def test_channels_that_cannot_be_brought_together_are_named():
    with pytest.raises(DataError, match=r"'a' has 3 channel\(s\) and 'b' has 7"):
        pack_arrays([np.zeros((3, 4, 4), np.uint8), np.zeros((7, 4, 4), np.uint8)], ids=["a", "b"])


def test_a_fault_leaves_nothing_behind(photos, cache):
    save(photos / "masks/p2.png", np.zeros((5, 5), dtype=np.uint8))
    with pytest.raises(MaskError, match="p2"):
        opened(photos, cache)
    assert cache_entries(cache) == []
    assert [path.name for path in cache.iterdir()] == [".locks"]


def test_a_cache_that_cannot_be_written_is_said(photos, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="SEGWRIGHT_CACHE"):
        opened(photos, tmp_path / "file")


def test_a_missing_file_is_named(photos, cache):
    source = open_source(photos)
    (photos / "images/p1.png").unlink()
    with pytest.raises(DataError, match=r"p1\.png"):
        open_pack(source, cache=cache, progress=False)


def test_two_runs_pack_once(photos, cache, decodings):
    slot = find_slot(open_source(photos), working_size_px=None, cache=cache)
    found: list[Pack] = []
    with slot.locked(shared=False):
        threads = [threading.Thread(target=lambda: found.append(opened(photos, cache))) for _ in range(2)]
        for thread in threads:
            thread.start()
        threads[0].join(0.3)
        assert found == []
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert decodings == [3]


def packer(photos: Path, cache: Path, *, pause: bool) -> subprocess.Popen[str]:
    """A process that opens the pack; with `pause` it says so and stays in the middle of writing."""
    hold = "p.write_pack = lambda source, folder, **others: print('half', flush=True) or time.sleep(60)"
    program = f"""
import time
from pathlib import Path
from segwright.data import pack as p
from segwright.data.sources import open_source
{hold if pause else ""}
print(len(p.open_pack(open_source(Path({str(photos)!r})), cache=Path({str(cache)!r}), progress=False)), flush=True)
"""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True)


def test_a_second_process_waits_and_says_so_and_takes_over_from_a_killed_one(photos, cache):
    with packer(photos, cache, pause=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "half\n"
        assert [path.suffix for path in cache.glob(".*.part")] == [".part"]
        with packer(photos, cache, pause=False) as second:
            assert second.stderr is not None
            assert "Another process is packing the same images; waiting for it." in second.stderr.readline()
            first.kill()
            assert second.communicate(timeout=60)[0] == "3\n"
    assert len(cache_entries(cache)) == 1
    assert not list(cache.glob(".*.part"))


def test_leftovers_of_other_packs_are_swept_unless_their_process_lives(photos, cache, tmp_path):
    mine = opened(photos, cache).folder
    assert mine is not None
    for name in ("0" * 24, "1" * 24, "notes"):
        (cache / f".{name}.part").mkdir()
        (cache / f".{name}.part" / "images.bin").write_bytes(b"x" * 1000)
    alive = Slot(cache / ("1" * 24), fingerprint="")
    with alive.locked(shared=False):
        opened(photos, cache, working_size_px=9)
        assert {path.name for path in cache.glob(".*.part")} == {f".{'1' * 24}.part", ".notes.part"}
    count, size = clear_cache(cache)
    assert count == 2
    assert size > 1000
    assert {path.name for path in cache.glob(".*.part")} == {".notes.part"}


def test_the_cache_is_listed_and_cleared(photos, cache, tmp_path):
    assert clear_cache(cache) == (0, 0)
    folder = opened(photos, cache).folder
    entry = cache_entries(cache)[0]
    assert (entry.folder, entry.images) == (folder, 3)
    assert entry.size_bytes > sum(h * w * 4 for h, w in SIZES)
    (cache / "mine").mkdir()
    (cache / "mine/index.json").write_text("[]")
    slot = find_slot(open_source(photos), working_size_px=None, cache=cache)
    with slot.locked(shared=True):
        assert clear_cache(cache) == (0, 0)
    assert clear_cache(cache) == (1, entry.size_bytes)
    assert cache_entries(cache) == []
    assert (cache / "mine/index.json").exists()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGWRIGHT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "packs"
    monkeypatch.delenv("SEGWRIGHT_CACHE")
    assert cache_folder().parts[-3:] == (".cache", "segwright", "packs")


def test_noise_is_told_from_pictures(rng):
    noise = rng.integers(0, 256, (1, 40, 50), dtype=np.uint8)
    wave = (127 + 100 * np.sin(np.arange(2000) / 9)).reshape(1, 40, 50).astype(np.uint8)
    pack = pack_arrays([wave, noise, np.full((1, 40, 50), 9, np.uint8), np.zeros((1, 1, 1), np.uint8)])
    assert pack.noise_like().tolist() == [1]
    assert pack.noise[2] == pack.noise[3] == 1.0


def test_neighbour_correlation_is_pearsons(rng):
    image = np.cumsum(rng.standard_normal((30, 40, 3)), axis=1).astype(np.float32)
    gray = image.mean(axis=2)
    pairs = [(gray[:, 1:], gray[:, :-1]), (gray[1:], gray[:-1])]
    expected = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
    assert neighbour_correlation(image) == pytest.approx(expected, abs=1e-4)


def test_a_subset_is_the_same_memory_in_another_order(photos, cache):
    pack = opened(photos, cache)
    some = pack.subset([2, 0])
    assert some.ids == ("p2", "p0")
    assert np.shares_memory(some.image(0), pack.image(2))
    np.testing.assert_array_equal(some.mask(1), pack.mask(0))
    assert some.pixel_bytes == 4 * (41 * 7 + 20 * 30)
    assert not pack.one_size
    assert pack.subset([1, 1]).one_size
    assert len(pack.subset([])) == 0


def test_unlabelled_images_have_no_mask(tmp_path, cache, rng):
    stack = rng.integers(0, 3, (4, 2, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "both.npz", training_set=stack, test_set=stack[:2, 0])
    pack = open_pack(open_source(tmp_path / "both.npz"), cache=cache, progress=False)
    assert pack.has_mask.tolist() == [True] * 4 + [False] * 2
    assert pack.mask(5) is None
    np.testing.assert_array_equal(pack.mask(3), stack[3, 1])
    assert pack.given_split[4:] == ("test", "test")


def test_images_are_decoded_in_order_whatever_their_number(tmp_path, cache):
    (tmp_path / "many").mkdir()
    for i in range(60):
        save(tmp_path / "many" / f"{i:02d}.png", np.full((3, 3), i, dtype=np.uint8))
    source = open_source(tmp_path / "many")
    parts = list(decode_all(source, working_size_px=None, progress=False))
    assert [int(part.image[0, 0, 0]) for part in parts] == list(range(60))


def test_an_empty_source_is_refused(photos, cache):
    from dataclasses import replace

    with pytest.raises(DataError, match="no image"):
        open_pack(replace(open_source(photos), samples=()), cache=cache)
