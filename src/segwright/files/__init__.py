"""Files: images, masks, arrays, JSON, YAML and CSV; read safely, written atomically.

    disk      whole files or none, digests, paths that stay inside their folder
    trees     texts: JSON, YAML, CSV
    arrays    .npz and .npy
    images    pictures and masks

Everything is written under a temporary name in the same folder, synced and renamed, and the folder is synced: a killed
run or a power cut leaves either the old file or the new one. Nothing read here can run code: arrays without pickle,
YAML by the safe loader.
"""

from __future__ import annotations

from segwright.files.arrays import read_arrays, write_arrays
from segwright.files.disk import atomic, confined, digest, real, sync_folder
from segwright.files.images import (
    IMAGE_SUFFIXES,
    LARGE_IMAGE_PIXELS,
    MAX_IMAGE_PIXELS,
    decoded_bytes,
    open_picture,
    read_image,
    read_palette,
    read_raw_mask,
    save_image,
    write_mask,
)
from segwright.files.trees import (
    csv_text,
    read_json,
    read_text,
    read_yaml,
    write_csv,
    write_json,
    write_text,
    write_yaml,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "LARGE_IMAGE_PIXELS",
    "MAX_IMAGE_PIXELS",
    "atomic",
    "confined",
    "csv_text",
    "decoded_bytes",
    "digest",
    "open_picture",
    "read_arrays",
    "read_image",
    "read_json",
    "read_palette",
    "read_raw_mask",
    "read_text",
    "read_yaml",
    "real",
    "save_image",
    "sync_folder",
    "write_arrays",
    "write_csv",
    "write_json",
    "write_mask",
    "write_text",
    "write_yaml",
]  # fmt: skip
