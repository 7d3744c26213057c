"""What would poison a training, told from a pack alone in milliseconds: noise, shared masks, masks without content.

The pack knows the digest of every picture and mask, the pixels of every class and how far neighbouring pixels agree;
only what is suspicious is looked at again. `verdict.audit` asks far more, of pictures that cannot even be read as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from segwright.auditing.findings import Finding
from segwright.auditing.noise import LEAST_CONTRAST, LEAST_SIDE_PX
from segwright.auditing.shared_masks import BREAKS, ENOUGH, ENOUGH_SIMPLE, breaks, same_layout
from segwright.data.pack import Pack
from segwright.types import ClassSet, SplitName

COMPARED = 200
"""Pictures of one mask that are compared with one another, at most."""


def find_poison(pack: Pack, split: Mapping[str, SplitName], classes: ClassSet) -> tuple[Finding, ...]:
    """What a training on these images would suffer from.

    Args:
        pack: the images.
        split: side of each id; images on no side are not looked at.
        classes: of the masks.
    """
    chosen = [i for i, name in enumerate(pack.ids) if split.get(name) in ("train", "val") and pack.has_mask[i]]
    noise = find_noise(pack, chosen)
    found = [noise, find_shared(pack, chosen), find_empty(pack, chosen, classes)]
    found.append(find_absent(pack, [i for i in chosen if split[pack.ids[i]] == "train"], classes))
    return tuple(finding for finding in found if finding is not None)


def find_noise(pack: Pack, chosen: Sequence[int]) -> Finding | None:
    """Pictures of noise among others that are none; where all are grainy, none is."""
    suspects = [i for i in pack.noise_like().tolist() if i in set(chosen) and pack.sizes[i].min() >= LEAST_SIDE_PX]
    rest = sorted(set(chosen) - set(suspects))
    if not suspects or len(rest) < len(suspects):
        return None
    usual = float(np.median(pack.noise[rest]))
    contrasts = [_contrast(pack, i) for i in rest[:: max(1, len(rest) // 50)]]
    least = max(LEAST_CONTRAST, float(np.median(contrasts)) / 4)
    found = [i for i in suspects if pack.noise[i] < usual / 2 and _contrast(pack, i) > least]
    if not found:
        return None
    ids = tuple(pack.ids[i] for i in sorted(found, key=lambda i: float(pack.noise[i])))
    drop = dict.fromkeys(ids, "the picture is noise")
    return Finding("noise_image", f"{len(ids)} of {len(chosen)} pictures are noise: they show nothing", ids, drop=drop)


def _contrast(pack: Pack, i: int) -> float:
    """Standard deviation in gray levels 0..255."""
    image = pack.image(i)
    full = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    return float(image[:, ::2, ::2].astype(np.float32).std()) * 255 / full


def find_shared(pack: Pack, chosen: Sequence[int]) -> Finding | None:
    """Masks that stand beside several different pictures."""
    varied = [i for i in chosen if np.count_nonzero(pack.class_pixels[i]) > 1]
    sets: dict[str, list[int]] = defaultdict(list)
    for i in varied:
        sets[pack.mask_digest[i]].append(i)
    shared = [members for members in sets.values() if len({pack.image_digest[i] for i in members}) >= ENOUGH]
    # A film, or one place at several times: then sharing is the rule and no slip.
    if len(shared) > 2 and 2 * sum(map(len, shared)) > len(varied):
        return None
    bad = [members for members in shared if _different(pack, members) >= _enough(pack, members[0])]
    if not bad:
        return None
    bad.sort(key=len, reverse=True)
    groups = tuple(tuple(pack.ids[i] for i in members) for members in bad)
    ids = tuple(name for group in groups for name in group)
    what = "one mask stands" if len(bad) == 1 else f"{len(bad)} masks stand"
    summary = f"{what} beside {len(ids)} different pictures: it cannot be right for all of them"
    drop = dict.fromkeys(ids, "its mask stands beside other, different pictures too")
    return Finding("shared_mask", summary, ids, groups=groups, drop=drop)


def _enough(pack: Pack, i: int) -> int:
    """So many pictures beside the mask of image i are a slip; chance may repeat a simple mask."""
    mask = pack.mask(i)
    assert mask is not None, "only labelled images are compared"
    return ENOUGH_SIMPLE if breaks(mask) < BREAKS else ENOUGH


def _different(pack: Pack, members: Sequence[int]) -> int:
    """How many different pictures there are: copies, in whatever light, count once."""
    layouts = np.stack([_layout(pack, i) for i in members[:COMPARED]])
    return int(connected_components(csr_matrix(same_layout(layouts)), directed=False)[0])


def _layout(pack: Pack, i: int) -> np.ndarray:
    """The picture as 8 x 8 gray values, in a row."""
    gray = pack.image(i)[:3].mean(axis=0, dtype=np.float32)
    return np.asarray(cv2.resize(gray, (8, 8), interpolation=cv2.INTER_AREA).reshape(-1), dtype=np.float64)


def find_empty(pack: Pack, chosen: Sequence[int], classes: ClassSet) -> Finding | None:
    """Masks in which no pixel counts."""
    counted = pack.class_pixels[:, : classes.num_classes].sum(axis=1)
    ids = tuple(pack.ids[i] for i in chosen if counted[i] == 0)
    if not ids:
        return None
    return Finding("empty_mask", f"{len(ids)} of {len(chosen)} masks hold nothing that counts", ids)


def find_absent(pack: Pack, train: Sequence[int], classes: ClassSet) -> Finding | None:
    """Classes that no training mask holds: they cannot be learnt."""
    pixels = pack.class_pixels[train, : classes.num_classes].sum(axis=0)
    names = [name for name, count in zip(classes.names, pixels, strict=True) if count == 0]
    if not names:
        return None
    return Finding("absent_class", f"no training mask holds {', '.join(names)}, so it cannot be learnt", level="look")
