"""Speed of augmentation, image and mask, against torchvision, kornia and albumentations.

    python benchmarks/augment.py --out benchmarks/results/augment.json
    python benchmarks/augment.py --device cuda --out benchmarks/results/augment-gpu.json

Every image of a batch of 32 gets a chance of its own: mirrored, turned by up to 15 degrees, zoomed by 0.75 to 1.5,
read once at the size it had (empty corners show the reflection, where the library can), brighter or darker, with more
or less contrast. Its mask goes the same way, at the nearest pixels. Bytes go in, and a stacked batch of bytes comes
out; what a library needs between is part of its time, and so is the drawing of chance. segwright gives its masks as
int64, as a loss takes them.

All run in turns in one process, each with one thread; `segwright_2_threads` shares the batch between two. The median of
the repeats stands in the table, by the clock and by the processor's time: on a machine that others use, the second is
the fairer one, and the order is judged by it (on a GPU, by the clock).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from segwright.augment import Draw, Policy, augment_on_cpu, augment_on_device, draw
from segwright.data.synthetic import terrain
from segwright.files import write_json

BATCH = 32
SHAPES = ((3, 256, 256), (1, 64, 128))
DEGREES, ZOOM, BRIGHTNESS, CONTRAST = 15.0, (0.75, 1.5), 0.2, 0.3
POLICY = Policy(
    flip_horizontal=0.5, rotate_degrees=DEGREES, scale=ZOOM, brightness=BRIGHTNESS, contrast=CONTRAST
)  # fmt: skip
PEERS = ("torchvision", "kornia", "albumentations")

Batch = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[], Batch]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each repeat")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    tables = []
    for shape in SHAPES:
        steps = steps_of(*shape, device=torch.device(options.device), missing=missing)
        tables.append({"shape": shape, "images_per_second": measure(steps, options)})
    packages = [name for name in ("torch", "opencv-python-headless", "numpy", *PEERS) if name not in missing]
    results = {
        "batch": BATCH,
        "tables": tables,
        "not_installed": missing,
        "machine": {"processor": platform.processor() or platform.machine(), "device": device_name(options.device)},
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "repeats": options.repeats,
    }
    show(results)
    if options.out is not None:
        write_json(options.out, results)


def pictures(channels: int, height: int, width: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A batch of generated terrain, (C, H, W) as views of (H, W, C), which is how a pack holds images."""
    pairs = [terrain(np.random.default_rng(n), (height, width)) for n in range(BATCH)]
    images = [np.ascontiguousarray(image[:channels].transpose(1, 2, 0)).transpose(2, 0, 1) for image, _ in pairs]
    return images, [mask for _, mask in pairs]


def steps_of(channels: int, height: int, width: int, *, device: torch.device, missing: list[str]) -> dict[str, Step]:
    """One function a library, each of which gives a batch that is augmented anew."""
    images, masks = pictures(channels, height, width)
    stack = torch.from_numpy(np.stack(images)).to(device), torch.from_numpy(np.stack(masks)).to(device)
    steps: dict[str, Step] = {}
    if device.type == "cpu":
        steps["segwright"] = ours(images, masks)
        steps["segwright_2_threads"] = ours_in_threads(images, masks, threads=2)
    else:
        steps["segwright"] = ours_on_device(*stack)
    if "torchvision" not in missing:
        steps["torchvision"] = of_torchvision(*stack)
    if "kornia" not in missing:
        steps["kornia"] = of_kornia(*stack)
    if "albumentations" not in missing and device.type == "cpu":
        steps["albumentations"] = of_albumentations(images, masks)
    for name, step in steps.items():
        first = step()
        assert first[0].shape == stack[0].shape, f"{name} gave {tuple(first[0].shape)}"
        assert first[0].dtype == torch.uint8, f"{name} gave {first[0].dtype}"
        assert first[1].shape == stack[1].shape, f"{name} gave masks {tuple(first[1].shape)}"
        assert set(first[1].unique().tolist()) <= {*stack[1].unique().tolist()}, f"{name} made up labels"
    return steps


def _drawn(images: list[np.ndarray], rng: np.random.Generator) -> tuple[Draw, tuple[int, int]]:
    channels, height, width = images[0].shape
    sizes = np.array([[height, width]] * len(images))
    return draw(POLICY, sizes, crop_px=(height, width), channels=channels, rng=rng), (height, width)


def ours(images: list[np.ndarray], masks: list[np.ndarray]) -> Step:
    rng = np.random.default_rng(0)

    def step() -> Batch:
        parameters, crop_px = _drawn(images, rng)
        return augment_on_cpu(images, masks, parameters, crop_px=crop_px)

    return step


def ours_in_threads(images: list[np.ndarray], masks: list[np.ndarray], *, threads: int) -> Step:
    rng, pool = np.random.default_rng(0), ThreadPoolExecutor(threads)
    shares = [slice(n * BATCH // threads, (n + 1) * BATCH // threads) for n in range(threads)]

    def step() -> Batch:
        parameters, crop_px = _drawn(images, rng)
        parts = pool.map(
            lambda rows: augment_on_cpu(images[rows], masks[rows], parameters.part(rows), crop_px=crop_px), shares
        )
        pictures, labels = zip(*parts, strict=True)
        return torch.cat(pictures), torch.cat(labels)

    return step


def ours_on_device(images: torch.Tensor, masks: torch.Tensor) -> Step:
    rng, crop_px = np.random.default_rng(0), (images.shape[2], images.shape[3])
    sizes = np.array([crop_px] * len(images))

    def step() -> Batch:
        parameters = draw(POLICY, sizes, crop_px=crop_px, channels=images.shape[1], rng=rng)
        return augment_on_device(images, masks, parameters, crop_px=crop_px)

    return step


def of_torchvision(images: torch.Tensor, masks: torch.Tensor) -> Step:
    """A batch as a whole would be changed alike, so image by image; its affine map has no reflection."""
    from torchvision import tv_tensors
    from torchvision.transforms import InterpolationMode, v2

    change = v2.Compose([
        v2.RandomHorizontalFlip(0.5),
        v2.RandomAffine(DEGREES, scale=ZOOM, interpolation=InterpolationMode.BILINEAR),
        v2.ColorJitter(brightness=BRIGHTNESS, contrast=CONTRAST),
    ])  # fmt: skip
    pairs = [(tv_tensors.Image(image), tv_tensors.Mask(mask)) for image, mask in zip(images, masks, strict=True)]

    def step() -> Batch:
        changed = [change(*pair) for pair in pairs]
        return torch.stack([image for image, _ in changed]), torch.stack([mask for _, mask in changed])

    return step


def of_kornia(images: torch.Tensor, masks: torch.Tensor) -> Step:
    """Floats between 0 and 1 inside; contrast and brightness of its own kind."""
    import kornia.augmentation as K
    from kornia.constants import Resample

    change = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(degrees=DEGREES, scale=ZOOM, padding_mode="reflection", p=1.0),
        K.RandomBrightness((1 - BRIGHTNESS, 1 + BRIGHTNESS), p=1.0),
        K.RandomContrast((1 - CONTRAST, 1 + CONTRAST), p=1.0),
        data_keys=["input", "mask"],
        extra_args={"mask": {"resample": Resample.NEAREST, "align_corners": False}},
    )

    def step() -> Batch:
        with torch.no_grad():
            changed, labels = change(images.float() / 255, masks[:, None].float())
        return (changed * 255).round().to(torch.uint8), labels[:, 0].to(torch.uint8)

    return step


def of_albumentations(images: list[np.ndarray], masks: list[np.ndarray]) -> Step:
    import albumentations as A

    change = A.Compose([
        A.HorizontalFlip(p=0.5),
        A.Affine(rotate=(-DEGREES, DEGREES), scale=ZOOM, border_mode=cv2.BORDER_REFLECT_101, p=1.0),
        A.RandomBrightnessContrast(brightness_limit=BRIGHTNESS, contrast_limit=CONTRAST, p=1.0),
    ])  # fmt: skip
    rows = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in images]

    def step() -> Batch:
        changed = [change(image=image, mask=mask) for image, mask in zip(rows, masks, strict=True)]
        pictures = np.stack([one["image"] for one in changed])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(np.stack([c["mask"] for c in changed]))

    return step


def measure(steps: dict[str, Step], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Images a second of each library, in turns."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(options.repeats):
        for name, step in steps.items():
            seen[name].append(once(step, seconds=options.seconds))
    return {
        name: {
            "clock": statistics.median(wall for wall, _ in pairs),
            "processor": statistics.median(spent for _, spent in pairs),
            "all_by_clock": [round(wall, 1) for wall, _ in pairs],
        }
        for name, pairs in seen.items()
    }


def once(step: Step, *, seconds: float) -> tuple[float, float]:
    """Images a second by the clock and by the processor's time, over a given time."""
    step()
    synchronize()
    started, spent, batches = time.perf_counter(), time.process_time(), 0
    while batches < 3 or time.perf_counter() - started < seconds:
        step()
        batches += 1
    synchronize()
    images = batches * BATCH
    return images / (time.perf_counter() - started), images / (time.process_time() - spent)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def show(results: dict[str, Any]) -> None:
    for one in results["tables"]:
        channels, height, width = one["shape"]
        table = Table(title=f"{BATCH} images of {channels} x {height} x {width}: images/s (median)")
        for head in ("library", "by the clock", "by the processor's time"):
            table.add_column(head, justify="left" if head == "library" else "right")
        for name, speed in one["images_per_second"].items():
            table.add_row(name, f"{speed['clock']:.0f}", f"{speed['processor']:.0f}")
        for name in results["not_installed"]:
            table.add_row(name, "not installed", "")
        Console().print(table)


if __name__ == "__main__":
    main()
