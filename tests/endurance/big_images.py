"""Photos of 12 megapixels: how fast they are packed, and how much memory packing and training take.

    python tests/endurance/big_images.py --folder /tmp/big --images 300 --out tests/endurance/results/big_images.json

Writes distinct 4000 x 3000 JPEGs with masks (once; 300 take 1 GB), then packs them at full size and trains on crops of
512 pixels with validation, evaluation and report, all in processes of their own whose memory is watched (PSS of the
whole tree). The same again with a tenth of the images. Ends with 1 where a promise is broken:

    memory      below 4 GiB at every moment
    growth      ten times the images change the peaks of packing and of training by less than a tenth

`decoder` is how fast the same files are decoded by Pillow alone in as many threads, images and masks.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from memory import Finished, run_watched
from PIL import Image
from rich.console import Console

HEIGHT, WIDTH, CLASSES, VALIDATION = 3000, 4000, 5, 2
COLORS = np.array([[60, 80, 40], [150, 150, 160], [200, 170, 110], [90, 120, 190], [170, 60, 50]], dtype=np.uint8)
LIMIT_MIB, GROWTH = 4096, 0.1


def write_photo(folder: Path, number: int) -> None:
    """One photo of textured shapes, unlike all others, and its mask."""
    image_file, mask_file = folder / "images" / f"photo_{number:04d}.jpg", folder / "masks" / f"photo_{number:04d}.png"
    if image_file.exists() and mask_file.exists():
        return
    cv2.setNumThreads(0)
    rng = np.random.default_rng(number)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for label in rng.integers(0, CLASSES, 60).tolist():
        centre, axes = rng.integers(0, (WIDTH, HEIGHT)).tolist(), rng.integers(60, 600, 2).tolist()
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, label, -1)
    image = COLORS[mask]
    for cells, share in ((1500, 0.25), (400, 0.15), (60, 0.15)):
        noise = rng.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
        noise = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        image = cv2.addWeighted(image, 1 - share, noise, share, 0)
    cv2.imwrite(str(image_file), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(mask_file), mask)


def write_photos(folder: Path, *, count: int, processes: int) -> float:
    """Photos that are not there yet, and how long that took."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(write_photo, [folder] * count, range(count), chunksize=4))
    return time.perf_counter() - started


def write_manifest(folder: Path, *, count: int) -> Path:
    """The first photos as a source: two to validate on, the rest to train on."""
    path = folder / f"first_{count}.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "mask", "split"])
        for i in range(count):
            side = "val" if i < VALIDATION else "train"
            rows.writerow([f"images/photo_{i:04d}.jpg", f"masks/photo_{i:04d}.png", side])
    return path


def decoder_speed(folder: Path, *, count: int, threads: int) -> float:
    """Photos a second, image and mask, by Pillow alone."""

    def decode(number: int) -> None:
        for name in (f"images/photo_{number:04d}.jpg", f"masks/photo_{number:04d}.png"):
            with Image.open(folder / name) as picture:
                picture.load()

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, range(count)))
    return count / (time.perf_counter() - started)


PACK = """
import sys
from pathlib import Path
from segwright.data.pack import open_pack
from segwright.data.sources import open_source
source = open_source(Path(sys.argv[1]))
import time
started = time.perf_counter()
pack = open_pack(source, progress=False)
seconds = time.perf_counter() - started
started = time.perf_counter()
open_pack(source, progress=False)
print(seconds, time.perf_counter() - started, pack.pixel_bytes)
"""


def pack_and_train(
    folder: Path, *, count: int, seconds: float, settings: list[str], environment: dict[str, str]
) -> dict[str, Any]:
    """Figures of one size of source."""
    source = write_manifest(folder, count=count)
    packed = run_watched([sys.executable, "-c", PACK, str(source)], environment=environment)
    pack_seconds, open_seconds, pixel_bytes = map(float, packed.output.split()[-3:])
    runs = folder / "runs"
    shutil.rmtree(runs / source.stem, ignore_errors=True)
    command = [
        sys.executable, "-m", "segwright", "train", str(source), "--minutes", f"{seconds / 60:.4f}",
        "--name", source.stem, "--out", str(runs), *settings,
    ]  # fmt: skip
    trained = run_watched(command, environment=environment)
    rows = [json.loads(line) for line in (runs / source.stem / "metrics.jsonl").read_text().splitlines()]
    return {
        "images": count,
        "pack": {
            "seconds": round(pack_seconds, 2),
            "images_per_second": round(count / pack_seconds, 2),
            "gib": round(pixel_bytes / 2**30, 2),
            "reopen_seconds": round(open_seconds, 4),
            **_memory(packed),
        },
        "train": {
            "seconds": round(trained.seconds, 1),
            "steps": rows[-1]["step"],
            "images_per_second": round(float(np.median([row["images_per_second"] for row in rows])), 2),
            "validations": len(rows),
            "val_miou": rows[-1]["val_miou"],
            **_memory(trained),
        },
    }


def _memory(finished: Finished) -> dict[str, Any]:
    seen = finished.memory
    return {"peak_mib": seen.peak_mib, "at_the_peak_mib": seen.peak, "processes": seen.processes}


def main() -> None:
    """Measure, print, write, and end with 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="photos, packs and runs; 40 MB a photo")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each training")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that write photos")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], help="of the recipe, such as model.name=unet")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    writing = write_photos(args.folder, count=args.images, processes=args.processes)
    console = Console()
    console.print(f"{args.images} photos written in {writing:.0f} s")
    environment = {**os.environ, "SEGWRIGHT_CACHE": str(args.folder / "cache"), "SEGWRIGHT_OFFLINE": "1"}
    result: dict[str, Any] = {
        "size": [HEIGHT, WIDTH],
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "decoder_images_per_second": round(
            decoder_speed(args.folder, count=min(args.images, 40), threads=min(8, os.cpu_count() or 1)), 2
        ),
        "runs": [],
    }
    settings = [part for setting in args.settings for part in ("--override", setting)]
    for count in (max(VALIDATION + 1, args.images // 10), args.images):
        figures = pack_and_train(
            args.folder, count=count, seconds=args.seconds, settings=settings, environment=environment
        )
        result["runs"].append(figures)
        console.print_json(json.dumps(figures))
    few, many = result["runs"]
    growth = {what: many[what]["peak_mib"] / few[what]["peak_mib"] - 1 for what in ("pack", "train")}
    peak = max(run[what]["peak_mib"] for run in (few, many) for what in ("pack", "train"))
    result |= {"peak_mib": peak, "growth": {what: round(share, 4) for what, share in growth.items()}}
    kept = peak < LIMIT_MIB and all(abs(share) < GROWTH for share in growth.values())
    result["kept"] = kept
    console.print(f"peak {peak:.0f} MiB, growth {growth['pack']:+.1%} packing, {growth['train']:+.1%} training")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
