"""How long an audit takes, and how much memory: generated pictures of 256 x 256 pixels.

    python benchmarks/audit.py --images 10000

They are written into a scratch folder (1.5 GB); then `segwright audit` runs in a process of its own, whose time and
peak memory are taken.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from segwright.files import write_json
from segwright.hardware import describe

SIDE = 256
RESULT = Path(__file__).parent / "results" / "audit.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="photos that are there already are used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segwright-bench-") as scratch:
        folder = options.folder or Path(scratch) / "photos"
        if not folder.is_dir():
            generate(folder, images=options.images)
        out = Path(scratch) / "audit"
        started = time.monotonic()
        words = [sys.executable, "-m", "segwright", "audit", str(folder), "-o", str(out)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        seconds = time.monotonic() - started
        if done.returncode not in (0, 1):
            sys.exit(done.stderr)
        tree = json.loads((out / "audit.json").read_text())
        page_mib = (out / "audit.html").stat().st_size / 2**20
    row = {
        "images": tree["images"],
        "side_px": SIDE,
        "seconds": round(seconds, 1),
        "images_per_second": round(tree["images"] / seconds, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 0),
        "verdict": tree["verdict"],
        "findings": {finding["kind"]: len(finding["ids"]) for finding in tree["findings"]},
        "page_mib": round(page_mib, 2),
    }
    print(json.dumps(row, indent=1))
    write_json(RESULT, {**row, "machine": describe(torch.device("cpu"))})


def generate(folder: Path, *, images: int) -> None:
    """Landscapes of chance: soft fields of colour with grain, and a mask of their heights."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_write, [folder] * images, range(images), chunksize=50))


def _write(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    coarse = rng.random((int(rng.integers(6, 24)), int(rng.integers(6, 24)), 4), dtype=np.float32)
    field = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    mask = np.digitize(field[..., 3], (0.35, 0.65)).astype(np.uint8)
    tint = np.array([[40, 90, 60], [90, 120, 160], [200, 170, 120]], dtype=np.float32)[mask]
    image = tint + 90 * (field[..., :3] - 0.5) + rng.normal(0, 6, (SIDE, SIDE, 3))
    name = f"{number:05d}.png"
    cv2.imwrite(
        str(folder / "images" / name), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    cv2.imwrite(str(folder / "masks" / name), mask)


if __name__ == "__main__":
    main()
