"""Points and fronts. Higher is better in every column; points are [N, K] numpy arrays, NaN is refused."""

import numpy as np


def dominates(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether a point is at least as good everywhere and better somewhere. [..., K] each -> [...] bool."""
    return np.all(one >= other, axis=-1) & np.any(one > other, axis=-1)


def front(points: np.ndarray) -> np.ndarray:
    """[N] bool: points [N, K] that no other dominates; of equal points all stand. Kung, Luccio & Preparata 1975.

    ValueError unless points is [N, K] without NaN.
    """
    points = _checked(points)
    return np.array([not dominates(points, point).any() for point in points], bool)


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume between the reference point and the points' front: of what some point and not the reference reaches.

    Exact for any K, by slicing along the last objective (Zitzler & Thiele 1998); time grows as N^(K - 1), meant for
    K <= 4. points [N, K], reference [K]; a point that is not above the reference everywhere adds nothing. Returns 0 for
    no points. ValueError for shapes that do not fit or NaN.
    """
    points, reference = _checked(points), np.asarray(reference, float)
    if reference.shape != points.shape[1:] or not np.isfinite(reference).all():
        raise ValueError(
            f"reference is {reference.tolist()}; expected {points.shape[1]} finite numbers, one per objective"
        )
    above = points[(points > reference).all(axis=1)] - reference
    return _volume(above)


def _volume(points: np.ndarray) -> float:
    """Volume of the boxes from 0 to the points [N, K], all of them above 0."""
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[front(points)]
    heights = np.unique(points[:, -1])
    slabs = np.diff(heights, prepend=0.0)
    return float(
        sum(slab * _volume(points[points[:, -1] >= top, :-1]) for slab, top in zip(slabs, heights, strict=True))
    )


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] < 1 or np.isnan(points).any():
        raise ValueError(f"points have shape {points.shape}; expected [points, objectives] without NaN")
    return points
