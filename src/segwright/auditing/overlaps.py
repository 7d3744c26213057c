"""Pairs of pictures that show the same thing: copies, crops of one photo, neighbours in a video or a flight.

Candidates share several local marks (`prints`, `nearest`), or have nearly one thumbnail. Each is then verified: a map
of shift, zoom and turn must explain the marks (RANSAC: Fischler and Bolles 1981, https://doi.org/10.1145/358669.358692),
and laid over one another by that map the thumbnails must be alike, seen without their slow changes of light. So
pictures that are only of one kind (skies, cells, lawns) make no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from segwright.auditing.nearest import nearest_of_others
from segwright.auditing.prints import Prints

FARTHEST = 30.0
"""Between the codes of marks that are taken for one."""

SHARED_MARKS = 3
"""That many make a candidate."""

MOST_CANDIDATES = 40
"""Of one picture on one side of a split: those with most marks in common."""

TOLERANCE = 0.03
"""Of the diagonal: how far a mark may lie from where the map puts it."""

LEAST_INLIERS, LEAST_LIKENESS = 6, 0.5
MANY_INLIERS, SOME_LIKENESS = 10, 0.3
"""Where the camera has moved on, near things cover far ones: much agrees in place, and less in looks."""

COPY_LIKENESS = 0.9
COPY_SHARE = 0.8
"""A copy may be cut a little, but is mostly the same picture."""

_SMOOTH = 3.0
_TINY = 16
_TINY_FARTHEST = 0.35
_FEW_MARKS = 12
_FEWEST_PIXELS = 60


@dataclass(frozen=True)
class Pair:
    """Two pictures that show one thing.

    Attributes:
        first, second: their positions.
        inliers: marks that one map explains.
        likeness: correlation of what both show, -1 to 1.
        shared: of the first and of the second, the part that both show.
    """

    first: int
    second: int
    inliers: int
    likeness: float
    shared: tuple[float, float]

    @property
    def is_copy(self) -> bool:
        """Whether both are one picture, stored anew or cut a little; not merely its neighbour."""
        return self.likeness >= COPY_LIKENESS and min(self.shared) >= COPY_SHARE


def find_pairs(prints: Sequence[Prints], *, sides: Sequence[str | None]) -> list[Pair]:
    """All verified pairs among some pictures, in the order of their positions.

    Args:
        prints: of each picture.
        sides: of a split, of each picture. A picture has its candidates on every side, so that near neighbours on its
            own side, such as in a film, do not hide those on another.
    """
    found: dict[tuple[int, int], Pair] = {}
    for first, second in sorted({*_by_marks(prints, sides), *_by_thumbnails(prints)}):
        pair = verified(prints[first], prints[second], first, second)
        if pair is not None:
            found[first, second] = pair
    return [found[key] for key in sorted(found)]


def verified(a: Prints, b: Prints, first: int, second: int) -> Pair | None:
    """Whether two pictures show one thing; None where that cannot be told."""
    matrix, inliers = _map_of_marks(a, b) or (_whole_on_whole(a, b), 0)
    if inliers < LEAST_INLIERS:
        # Too little in them to map one on the other: only whole copies can be told.
        if min(len(a.codes), len(b.codes)) >= _FEW_MARKS:
            return None
        matrix = _whole_on_whole(a, b)
    likeness, shared = _likeness(a, b, matrix)
    if likeness < _least_likeness(inliers):
        return None
    return Pair(first, second, inliers, likeness, shared)


def _least_likeness(inliers: int) -> float:
    if inliers < LEAST_INLIERS:
        return COPY_LIKENESS
    return SOME_LIKENESS if inliers >= MANY_INLIERS else LEAST_LIKENESS


def _whole_on_whole(a: Prints, b: Prints) -> Float[np.ndarray, "2 3"]:
    wide, high = (mine / other for mine, other in zip(a.size_px[::-1], b.size_px[::-1], strict=True))
    return np.array([[wide, 0, 0], [0, high, 0]])


def _by_marks(prints: Sequence[Prints], sides: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Pairs that share `SHARED_MARKS` marks or more."""
    counts = [len(one.codes) for one in prints]
    if sum(counts) == 0:
        return
    owners = np.repeat(np.arange(len(prints)), counts)
    codes = np.concatenate([one.codes for one in prints]).astype(np.float32)
    a, b = nearest_of_others(codes, codes, query_owners=owners, owners=owners, farthest=FARTHEST, most=8)
    low, high = np.minimum(owners[a], owners[b]), np.maximum(owners[a], owners[b])
    marks = np.where(owners[a] < owners[b], a, b)
    # Each mark of the first counts once, however many of the second it resembles.
    keys = np.unique(np.stack([low * len(prints) + high, marks], axis=1), axis=0)[:, 0]
    pairs, votes = np.unique(keys, return_counts=True)
    pairs, votes = pairs[votes >= SHARED_MARKS], votes[votes >= SHARED_MARKS]
    yield from _strongest(pairs // len(prints), pairs % len(prints), votes, sides=sides)


def _strongest(
    first: Int64[np.ndarray, " P"], second: Int64[np.ndarray, " P"], votes: Int64[np.ndarray, " P"],
    *, sides: Sequence[str | None],
) -> Iterator[tuple[int, int]]:  # fmt: skip
    """Pairs that are among the first `MOST_CANDIDATES` of either picture on the other's side."""
    used: Counter[tuple[int, str | None]] = Counter()
    for place in np.argsort(-votes, kind="stable"):
        a, b = int(first[place]), int(second[place])
        if min(used[a, sides[b]], used[b, sides[a]]) < MOST_CANDIDATES:
            used[a, sides[b]] += 1
            used[b, sides[a]] += 1
            yield a, b


def _by_thumbnails(prints: Sequence[Prints]) -> Iterator[tuple[int, int]]:
    """Pairs of pictures with few marks whose tiny copies are nearly one."""
    few = [i for i, one in enumerate(prints) if len(one.codes) < _FEW_MARKS]
    tiny = np.stack([_tiny(prints[i].thumbnail) for i in few]) if few else np.zeros((0, _TINY**2), np.float32)
    owners = np.arange(len(few))
    a, b = nearest_of_others(tiny, tiny, query_owners=owners, owners=owners, farthest=_TINY_FARTHEST, most=8)
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        yield min(few[i], few[j]), max(few[i], few[j])


def _tiny(thumbnail: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, " 256"]:
    small = cv2.resize(thumbnail, (_TINY, _TINY), interpolation=cv2.INTER_AREA).astype(np.float32).reshape(-1)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1.0)


def _map_of_marks(a: Prints, b: Prints) -> tuple[Float[np.ndarray, "2 3"], int] | None:
    """The map from pixels of `b` to those of `a`, and how many marks it explains, counted by place."""
    if min(len(a.codes), len(b.codes)) < SHARED_MARKS:
        return None
    x, y = a.codes.astype(np.float32), b.codes.astype(np.float32)
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2 * (x @ y.T)
    there, back = squares.argmin(axis=1), squares.argmin(axis=0)
    rows = np.arange(len(x))
    mutual = rows[(back[there] == rows) & (squares[rows, there] < (1.1 * FARTHEST) ** 2)]
    if len(mutual) < SHARED_MARKS:
        return None
    reach = TOLERANCE * float(np.hypot(*a.size_px))
    here, other = a.spots[mutual, :2], b.spots[there[mutual], :2]
    matrix, explained = cv2.estimateAffinePartial2D(
        other, here, method=cv2.RANSAC, ransacReprojThreshold=reach, maxIters=200, confidence=0.99, refineIters=5
    )
    agree = np.asarray(explained).reshape(-1).astype(bool)
    if not agree.any():  # then there is no matrix either
        return None
    return matrix, len(np.unique(np.rint(here[agree] / reach), axis=0))


def _likeness(a: Prints, b: Prints, matrix: Float[np.ndarray, "2 3"]) -> tuple[float, tuple[float, float]]:
    """Correlation of what both thumbnails show, and the part of each that both show."""
    one, two = a.thumbnail, b.thumbnail
    to_one, to_two = (
        np.array([small.shape[1] / size[1], small.shape[0] / size[0]])
        for small, size in ((one, a.size_px), (two, b.size_px))
    )
    between = matrix.astype(np.float64).copy()
    between[:, :2] /= to_two
    between *= to_one[:, None]
    between[:, 2] += 0.5 * (between[:, 0] + between[:, 1]) - 0.5  # pixel centres
    area = abs(float(np.linalg.det(between[:, :2])))
    if not 1e-3 < area < 1e3:
        return 0.0, (0.0, 0.0)
    shape = (one.shape[1], one.shape[0])
    laid = cv2.warpAffine(two, between, shape, flags=cv2.INTER_LINEAR)
    covered = cv2.warpAffine(np.ones_like(two), between, shape, flags=cv2.INTER_NEAREST)
    both = cv2.erode(covered, np.ones((3, 3), np.uint8)) > 0
    shared = float(covered.mean()), min(1.0, float(covered.sum()) / area / two.size)
    if both.sum() < _FEWEST_PIXELS:
        return 0.0, shared
    x, y = _texture(one)[both], _texture(laid)[both]
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum() + 1e-6)), shared


def _texture(gray: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Without slow changes of light, and of one strength everywhere."""
    values = gray.astype(np.float32)
    fine = values - cv2.GaussianBlur(values, (0, 0), _SMOOTH)
    strength = np.sqrt(cv2.GaussianBlur(fine * fine, (0, 0), _SMOOTH)) + 6
    return np.asarray(fine / strength, dtype=np.float32)


def grouped(count: int, pairs: Iterable[Pair], *, largest: int) -> tuple[list[int], int]:
    """Pictures that belong together, the surest pairs first; no group grows beyond `largest`.

    In a long video every picture is the neighbour of the next: without an end, all would be one group, and nothing
    could be divided any more.

    Args:
        count: of pictures.
        pairs: verified ones.
        largest: pictures of one group, at most.

    Returns:
        A group number for every picture, and how many pairs stand in two groups.
    """
    parent, size = list(range(count)), [1] * count

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    ordered = sorted(pairs, key=lambda pair: (not pair.is_copy, -pair.likeness * min(pair.inliers, 20)))
    for pair in ordered:
        a, b = root(pair.first), root(pair.second)
        if a != b and (size[a] + size[b] <= largest or pair.is_copy):
            parent[b] = a
            size[a] += size[b]
    numbers = [root(i) for i in range(count)]
    return numbers, sum(numbers[pair.first] != numbers[pair.second] for pair in ordered)
