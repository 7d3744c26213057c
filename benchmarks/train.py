"""Training speed against the script that people write: the same network, size and batch, alternating in one run.

    python benchmarks/train.py --data photos/ --size 320 320 --classes 12 --out benchmarks/results/train.json

Three contestants, each in a process of its own, in turn:

    plain    files decoded by DataLoader workers, albumentations, float32, Adam: the usual notebook
    by-hand  the same with bfloat16 autocast and channels-last switched on
    ours     pack, augmentation, Lightning and all else that `segwright train` does in a step

`outside` is the share of our step that is not the network: 1 - (time of forward, loss, backward and optimiser on a
fixed batch) / (time of a whole step).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, ENCODER = 8, "resnet18"
CONTESTANTS = ("plain", "by-hand", "ours")


def files(root: Path) -> list[tuple[Path, Path]]:
    """Pairs of image and mask, from train/ where there is one."""
    root = root / "train" if (root / "train").is_dir() else root
    masks = {path.stem: path for path in sorted((root / "masks").iterdir())}
    return [(path, masks[path.stem]) for path in sorted((root / "images").iterdir()) if path.stem in masks]


def plain(args: argparse.Namespace, *, by_hand: bool) -> dict[str, float]:
    """The loop that a good notebook has."""
    import albumentations as A
    import cv2
    import numpy as np
    import segmentation_models_pytorch as smp
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    height, width = args.size
    change = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(scale=(0.75, 1.5), rotate=(-5, 5), border_mode=cv2.BORDER_REFLECT_101, p=1.0),
            A.PadIfNeeded(height, width, border_mode=cv2.BORDER_REFLECT_101),
            A.RandomCrop(height, width),
            A.RandomBrightnessContrast(0.1, 0.2, p=1.0),
            A.RandomGamma((80, 120), p=1.0),
            A.HueSaturationValue(8, 30, 0, p=1.0),
            A.Normalize(),
        ]
    )

    class Pairs(Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.pairs = files(args.data)

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, i: int) -> tuple[Any, Any]:
            image, mask = self.pairs[i]
            both = change(image=np.array(Image.open(image).convert("RGB")), mask=np.array(Image.open(mask)))
            return torch.from_numpy(both["image"].transpose(2, 0, 1)), torch.from_numpy(both["mask"]).long()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if by_hand else torch.contiguous_format
    model = smp.Unet(ENCODER, encoder_weights=None, classes=args.classes).to(device, memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ce = torch.nn.CrossEntropyLoss(ignore_index=255)
    loader = DataLoader(Pairs(), BATCH, shuffle=True, num_workers=args.workers, drop_last=True)

    def epochs() -> Any:
        while True:
            yield from loader

    seconds = []
    mark = time.perf_counter()
    for step, (images, masks) in enumerate(epochs()):
        images = images.to(device, memory_format=layout)
        masks = torch.where(masks < args.classes, masks, 255).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=by_hand):
            logits = model(images)
            loss = ce(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # every notebook prints its loss
        now = time.perf_counter()
        seconds.append(now - mark)
        mark = now
        if step + 1 == args.warmup + args.steps:
            break
    return {"images_per_second": BATCH * args.steps / sum(seconds[args.warmup :])}


def ours(args: argparse.Namespace) -> dict[str, float]:
    """What `segwright train` does in a step, without its beginning and end."""
    import lightning.pytorch as pl
    import torch

    from segwright.augment import PRESETS
    from segwright.data.loader import TrainLoader
    from segwright.data.pack import open_pack
    from segwright.data.sources import open_source
    from segwright.hardware import choose_device, choose_precision, keep_freed_memory
    from segwright.losses import build_loss
    from segwright.models import ModelSpec, build_model
    from segwright.optim import OptimizerSettings, Shape
    from segwright.training.averaging import Averaging
    from segwright.training.budget import Budget
    from segwright.training.callbacks import BudgetCallback, NanWatch
    from segwright.training.module import SegmentationModule

    keep_freed_memory()
    device = choose_device()
    pack = open_pack(open_source(args.data), progress=False)
    rows = [i for i, side in enumerate(pack.given_split) if side in (None, "train")]
    loader = TrainLoader(
        pack, rows, batch_size=BATCH, policy=PRESETS["medium"], crop_px=tuple(args.size), seed=0, device=device
    )
    spec = ModelSpec(
        name="smp_unet", in_channels=pack.channels, num_classes=args.classes, encoder=ENCODER, arguments={},
        mean=(0.5,) * pack.channels, std=(0.25,) * pack.channels, scale=255.0, never_predict=(),
    )  # fmt: skip
    budget = Budget(steps=args.warmup + args.steps, seconds=None)
    module = SegmentationModule(
        build_model(spec).to(memory_format=torch.channels_last), loss=build_loss("ce", num_classes=args.classes),
        budget=budget, optimizer=OptimizerSettings("adamw", lr=1e-3, weight_decay=0.01),
        schedule=("cosine", Shape(warmup=0.03, final_factor=0.01)), averaging=Averaging("moving", decay=0.99),
        compiled=device.type == "cuda",
    )  # fmt: skip

    marks: list[float] = []

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            if device.type == "cuda" and len(marks) in (args.warmup - 1, args.warmup + args.steps - 1):
                torch.cuda.synchronize()
            marks.append(time.perf_counter())

    precision = {"bf16": "bf16-mixed", "fp16": "16-mixed", "fp32": "32-true"}[choose_precision("auto", device=device)]
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, precision=precision, gradient_clip_val=1.0,
        max_steps=args.warmup + args.steps, max_epochs=-1, callbacks=[BudgetCallback(), NanWatch(pack.ids), Clock()],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, loader)
    whole = (marks[-1] - marks[args.warmup - 1]) / args.steps

    batch = loader.batch(0)
    optimizer = torch.optim.AdamW(module.model.parameters(), lr=1e-4, fused=True)
    module = module.to(device).train()
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            if device.type == "cuda":
                torch.cuda.synchronize()
            mark = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = module(batch.images)
        loss = module.loss(logits, batch.masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    network = (time.perf_counter() - mark) / args.steps
    return {"images_per_second": BATCH / whole, "outside": 1 - network / whole}


def main() -> None:
    """Run the contestants in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with images/ and masks/; none: generated terrain")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 320), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--only", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only is not None:
        figures = ours(args) if args.only == "ours" else plain(args, by_hand=args.only == "by-hand")
        print(json.dumps(figures))
        return
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as cache:
        if args.data is None:
            args.data = Path(cache) / "terrain"
            subprocess.run([sys.executable, "-m", "segwright.data.synthetic", args.data, "--images", "120"], check=True)
        quiet = {"PYTHONWARNINGS": "ignore", "NO_ALBUMENTATIONS_UPDATE": "1"}
        environment = {**os.environ, **quiet, "SEGWRIGHT_CACHE": cache}
        for _ in range(args.rounds):
            for name in CONTESTANTS:
                done = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--data", str(args.data), "--only", name],
                    env=environment, check=True, capture_output=True, text=True,
                )  # fmt: skip
                rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
    speed = {name: statistics.median(figures["images_per_second"] for figures in rows) for name, rows in rounds.items()}
    result = {
        "data": args.data.name, "size": list(args.size), "batch": BATCH, "encoder": ENCODER, "rounds": rounds,
        "images_per_second": speed, "outside": statistics.median(row["outside"] for row in rounds["ours"]),
        "ours_to_plain": speed["ours"] / speed["plain"], "ours_to_by_hand": speed["ours"] / speed["by-hand"],
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }  # fmt: skip
    for name in CONTESTANTS:
        print(f"{name:8s} {speed[name]:7.2f} images/s")
    print(f"ours is {result['ours_to_plain']:.2f} x plain, {result['ours_to_by_hand']:.2f} x by-hand")
    print(f"outside the network: {result['outside']:.1%} of our step")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
