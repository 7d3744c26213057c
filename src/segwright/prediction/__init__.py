"""A trained model put to use: images in, masks out."""

from __future__ import annotations
