"""Nearest vectors of other images among millions, without comparing all with all.

Vectors are divided into cells of about `CELL` around sampled centres, moved twice to the mean of what lies nearest
(Lloyd); each vector is compared with those of its two nearest cells (an inverted file: Jegou, Douze and Schmid,
"Product quantization for nearest neighbor search", PAMI 2011, https://doi.org/10.1109/TPAMI.2010.57). Work grows
with the number of vectors times `CELL`, memory with the number of vectors.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

CELL = 1024
"""Vectors of a cell, about; fewer vectors than two cells hold are compared all with all."""

PROBES = 2
"""Cells in which a vector looks for its like."""

_BLOCK = 1024
_SAMPLED = 32

Pairs = tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]


def nearest_of_others(
    queries: Float32[np.ndarray, "Q D"],
    vectors: Float32[np.ndarray, "M D"],
    *,
    query_owners: Int64[np.ndarray, " Q"],
    owners: Int64[np.ndarray, " M"],
    farthest: float,
    most: int,
) -> Pairs:
    """Rows of `queries` and of `vectors` that lie near one another.

    Args:
        queries: what is looked for.
        vectors: where it is looked for.
        query_owners: the image of each query.
        owners: the image of each vector; those of a query's own image are passed over.
        farthest: largest Euclidean distance.
        most: so many a query, at most; the nearest.
    """
    if not len(queries) or not len(vectors):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    centres = _centres(vectors)
    home = _nearest_cells(vectors, centres, count=1)[:, 0]
    members = np.argsort(home, kind="stable")
    starts = np.searchsorted(home[members], np.arange(len(centres) + 1))
    found = []
    wanted = _nearest_cells(queries, centres, count=min(PROBES, len(centres)))
    for probe in wanted.T:
        order = np.argsort(probe, kind="stable")
        edges = np.searchsorted(probe[order], np.arange(len(centres) + 1))
        for cell in np.flatnonzero(np.diff(edges)):
            inside = members[starts[cell] : starts[cell + 1]]
            for start in range(int(edges[cell]), int(edges[cell + 1]), _BLOCK):
                asked = order[start : min(start + _BLOCK, int(edges[cell + 1]))]
                found.append(
                    _within(
                        queries, vectors, query_owners, owners, asked=asked, inside=inside, farthest=farthest, most=most
                    )
                )
    rows, columns, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept = _first(rows, distances, most=most)
    return rows[kept], columns[kept]


def _centres(vectors: Float32[np.ndarray, "M D"]) -> Float32[np.ndarray, "c D"]:
    count = max(1, len(vectors) // CELL)
    rng = np.random.default_rng(0)
    if count == 1:
        return vectors[:1]
    sample = vectors[rng.choice(len(vectors), size=min(len(vectors), _SAMPLED * count), replace=False)]
    centres = sample[:count].copy()
    for _ in range(2):
        home = _nearest_cells(sample, centres, count=1)[:, 0]
        sums = np.zeros_like(centres)
        np.add.at(sums, home, sample)
        sizes = np.bincount(home, minlength=count)
        centres[sizes > 0] = sums[sizes > 0] / sizes[sizes > 0, None]
    return centres


def _nearest_cells(
    vectors: Float32[np.ndarray, "M D"], centres: Float32[np.ndarray, "c D"], *, count: int
) -> Int64[np.ndarray, "M n"]:
    half = (centres * centres).sum(axis=1) / 2
    result = np.zeros((len(vectors), count), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        nearness = vectors[start : start + _BLOCK] @ centres.T - half
        for n in range(count):
            result[start : start + _BLOCK, n] = best = nearness.argmax(axis=1)
            nearness[np.arange(len(nearness)), best] = -np.inf
    return result


def _within(
    queries: Float32[np.ndarray, "Q D"],
    vectors: Float32[np.ndarray, "M D"],
    query_owners: Int64[np.ndarray, " Q"],
    owners: Int64[np.ndarray, " M"],
    *,
    asked: Int64[np.ndarray, " q"],
    inside: Int64[np.ndarray, " m"],
    farthest: float,
    most: int,
) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"], Float32[np.ndarray, " P"]]:
    """Near pairs of some queries and the vectors of one cell, with squared distances."""
    left, right = queries[asked], vectors[inside]
    squares = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1) - 2 * (left @ right.T)
    rows, columns = np.nonzero(squares <= farthest * farthest)
    others = query_owners[asked[rows]] != owners[inside[columns]]
    rows, columns = rows[others], columns[others]
    distances = squares[rows, columns]
    kept = _first(rows, distances, most=most)
    return asked[rows[kept]], inside[columns[kept]], distances[kept]


def _first(
    rows: Int64[np.ndarray, " P"], distances: Float32[np.ndarray, " P"], *, most: int
) -> Int64[np.ndarray, " p"]:
    """Positions of the nearest `most` of each row, in order of rows."""
    order = np.lexsort((distances, rows))
    ordered = rows[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    rank = np.arange(len(ordered)) - np.repeat(begins, np.diff(np.r_[begins, len(ordered)]))
    return np.asarray(order[rank < most])
