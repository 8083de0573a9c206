"""Points, fronts and preferences. Higher is better in every column; points are [N, K] numpy arrays, NaN is refused."""

import itertools
import math

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


def igd_plus(points: np.ndarray, reference: np.ndarray) -> float:
    """IGD+: the mean, over the reference front, of how much the nearest point lacks of each of its points; 0 is best.

    mean_z min_a |max(z - a, 0)|_2, what a point has more of being no fault. Ishibuchi et al. 2015, eq. 19. It agrees with
    dominance weakly, and depends on the scale of columns. points [N, K], reference [R, K]; infinite for no points.
    ValueError for shapes that do not fit, NaN, and an empty reference.
    """
    points, reference = _checked(points), _checked(reference)
    if not len(reference) or points.shape[1] != reference.shape[1]:
        raise ValueError(
            f"reference has shape {reference.shape}; expected at least one row of {points.shape[1]} columns"
        )
    lacks = np.maximum(reference[:, None] - points[None], 0.0)
    return float(np.linalg.norm(lacks, axis=-1).min(axis=1, initial=np.inf).mean())


def spread(points: np.ndarray) -> float:
    """How unevenly distinct points lie along their front: sum |d - mean d| / sum d, d being distances to the next one.

    0 for even gaps, below 2 else. The Delta of Deb et al. 2002 in the form of Zhou et al. 2006 for any K (d: to the nearest
    other point), without its distance to the true front's ends, which nobody knows. points [N, K] of columns on one scale.
    NaN for fewer than two distinct points. ValueError unless points is [N, K] without NaN.
    """
    points = np.unique(_checked(points), axis=0)
    if len(points) < 2:
        return math.nan
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    gaps = np.where(np.eye(len(points), dtype=bool), np.inf, apart).min(axis=1)
    return float(np.abs(gaps - gaps.mean()).sum() / gaps.sum())


def knee(points: np.ndarray) -> int:
    """The front's point that bulges most: farthest beyond the plane through the best point of each column. Das 1999.

    In units of the front's range by column; where that plane is none with a normal above 0 everywhere, beyond the one
    with the normal 1. Returns a row of `points` [N, K], the first of equals; with one column the best one. ValueError
    unless points is [N, K] without NaN and N > 0.
    """
    points = _checked(points)
    if not len(points):
        raise ValueError("no points; a knee is one of them")
    rows = np.flatnonzero(front(points))
    kept = points[rows]
    low, high = kept.min(axis=0), kept.max(axis=0)
    scaled = (kept - low) / np.where(high > low, high - low, 1.0)
    ends = scaled[np.argmax(scaled, axis=0)]
    ones = np.ones(len(ends))
    normal = np.linalg.lstsq(ends, ones, rcond=None)[0]
    if not (normal > 1e-9).all() or not np.allclose(ends @ normal, ones):
        normal = ones
    return int(rows[np.argmax(np.round(scaled @ normal / np.linalg.norm(normal), 12))])


def nearest(preferences: np.ndarray, wish: np.ndarray) -> int:
    """The row of preferences [N, K] nearest to a wish [K], each over its sum; the first of equals.

    ValueError unless all are finite, not negative and of a sum above 0, and the columns as many.
    """
    preferences, wish = _checked(preferences), np.asarray(wish, float)
    if wish.shape != preferences.shape[1:] or not len(preferences):
        raise ValueError(
            f"the wish has shape {wish.shape}; expected {preferences.shape[1]} numbers, and a preference to choose"
        )
    both = np.concatenate([preferences, wish[None]])
    if not (np.isfinite(both) & (both >= 0)).all() or not (both.sum(axis=1) > 0).all():
        raise ValueError("preferences must be finite, not negative, and not all 0")
    shares = both / both.sum(axis=1, keepdims=True)
    return int(np.argmin(np.round(np.linalg.norm(shares[:-1] - shares[-1], axis=1), 12)))


def simplex(count: int, objectives: int) -> np.ndarray:
    """`count` preferences [count, K] of the sum 1, evenly over all: the corners, each one objective alone, among them.

    The lattice of Das & Dennis 1998 with as many steps as fit; what is left of `count` is filled from the next finer one,
    each time the point farthest from those taken. From the first objective alone to the last. ValueError below one
    objective and for fewer preferences than objectives.
    """
    if objectives < 1 or count < objectives:
        raise ValueError(
            f"{count} preferences of {objectives} objectives; at least one objective, and a preference for each"
        )
    if objectives == 1:
        return np.ones((count, 1))
    steps = 1
    while math.comb(steps + objectives, objectives - 1) <= count:
        steps += 1
    taken, finer = _lattice(steps, objectives), _lattice(steps + 1, objectives)
    while len(taken) < count:
        far = np.linalg.norm(finer[:, None] - taken[None], axis=-1).min(axis=1)
        taken = np.concatenate([taken, finer[[np.argmax(np.round(far, 12))]]])
    return taken[np.lexsort(-taken.T[::-1])]


def stationarity(gram: np.ndarray) -> float:
    """How far from Pareto-stationary, 0 to 1: the length of the shortest convex combination of unit gradients.

    0: no direction serves all objectives to first order, as at any Pareto-optimal point (Fliege & Svaiter 2000); 1: all
    gradients point the same way. gram: [K, K], their inner products; a gradient of 0 gives 0. Exact, by non-negative least
    squares (Lawson & Hanson 1974). ValueError unless it is square and finite, with no negative diagonal.
    """
    gram = np.asarray(gram, float)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.size or not np.isfinite(gram).all():
        raise ValueError(f"gram has shape {gram.shape}; expected [objectives, objectives] of finite numbers")
    squares = np.diagonal(gram)
    if (squares < 0).any():
        raise ValueError(f"gram has {squares.min():.3g} on its diagonal, which holds squared lengths")
    if not squares.all():
        return 0.0
    lengths = np.sqrt(squares)
    cosines = gram / lengths[:, None] / lengths[None, :]
    weights = shortest(cosines)
    return float(np.sqrt(min(max(weights @ cosines @ weights, 0.0), 1.0)))


def shortest(gram: np.ndarray) -> np.ndarray:
    """Weights [K] >= 0 of the sum 1 whose combination of gradients is the shortest. gram: [K, K], finite, of size about 1.

    v / sum v of the least |J v|^2 + (sum v - 1)^2, v >= 0: Lawson & Hanson 1974, chapter 23.
    """
    matrix, point, inside = gram + 1.0, np.zeros(len(gram)), np.zeros(len(gram), bool)
    for _ in range(10 * len(gram)):
        slope = 1.0 - matrix @ point
        enters = int(np.argmax(np.where(inside, -np.inf, slope)))
        if inside.all() or slope[enters] <= 1e-12:
            break
        inside[enters] = True
        while inside.any():
            best = np.zeros_like(point)
            best[inside] = np.linalg.lstsq(matrix[np.ix_(inside, inside)], np.ones(inside.sum()), rcond=None)[0]
            falls = inside & (best <= 0)
            if not falls.any():
                break
            share = np.where(falls, point / np.where(falls, point - best + 1e-300, 1.0), np.inf)
            point = point + min(share.min(), 1.0) * (best - point)
            inside &= ~(falls & (share <= share.min()))
            point = np.where(inside, point, 0.0)
        point = np.where(inside, best, 0.0)
    return point / point.sum()


def _lattice(steps: int, objectives: int) -> np.ndarray:
    """All vectors of `objectives` multiples of 1 / steps that sum to 1."""
    cuts = itertools.combinations(range(steps + objectives - 1), objectives - 1)
    bars = np.array([(-1, *cut, steps + objectives - 1) for cut in cuts])
    return (np.diff(bars, axis=1) - 1) / steps


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
