"""Of a large pack only a part counts as memory of the process; what was handed out stays right."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.data import pack as pack_module
from segwright.data import residency
from segwright.data.pack import open_pack
from segwright.data.sources import open_source

IMAGE_BYTES = 3 * 512 * 512


def resident_bytes(path: Path) -> int:
    """Mapped pages of a file that are in memory, as the system counts them for this process."""
    blocks = Path("/proc/self/smaps").read_text(encoding="utf-8").split(str(path))[1:]
    return sum(int(re.search(r"Rss:\s+(\d+) kB", block)[1]) * 1024 for block in blocks)  # type: ignore[index]


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(12):
        values = np.repeat(rng.integers(0, 256, (512, 8, 3), dtype=np.uint8), 64, axis=1)
        Image.fromarray(values).save(tmp_path / "photos" / f"p{i:02d}.png", compress_level=1)
    return tmp_path / "photos"


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
@pytest.mark.parametrize("limit", [3 * IMAGE_BYTES, 100 * IMAGE_BYTES])
def test_a_large_pack_stays_small_in_memory(photos, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(residency, "MAPPED_AT_ONCE_BYTES", limit)
    source = open_source(photos, masks=False)
    pack = open_pack(source, cache=tmp_path / "cache", progress=False)
    assert pack.folder is not None
    first = pack.image(0)
    most = 0
    for i in range(len(pack)):
        np.testing.assert_array_equal(pack.image(i), source.read_image(source.samples[i]))
        most = max(most, resident_bytes(pack.folder / "images.bin"))
    # The system maps some neighbours of a page that is touched.
    assert most <= limit + (1 << 20)
    assert most >= min(limit, 11 * IMAGE_BYTES) - IMAGE_BYTES
    np.testing.assert_array_equal(first, source.read_image(source.samples[0]))


def test_a_pack_that_does_not_fit_is_read_from_disk_and_says_so(photos, tmp_path, monkeypatch):
    source = open_source(photos, masks=False)
    monkeypatch.setattr(pack_module, "available_memory_bytes", lambda: 20 * IMAGE_BYTES)
    pack = open_pack(source, cache=tmp_path / "cache", progress=False, resident="memory")
    assert pack.residency is not None
    assert "too much for the memory" in pack.notes[-1]
    monkeypatch.setattr(pack_module, "available_memory_bytes", lambda: 30 * IMAGE_BYTES)
    pack = open_pack(source, cache=tmp_path / "cache", progress=False, resident="memory")
    assert pack.residency is None
    assert pack.notes == ()
