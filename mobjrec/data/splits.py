"""Which split every unit (an impression list, or a single event) belongs to: 0 train, 1 valid, 2 test.

A factory returns a function (user [N], time [N], published [N] or None) -> [N] int8, time and published split being those
of a unit's last event. Units come sorted by (user, time, item), so ties in time are broken by item id.
"""

from collections.abc import Callable

import numpy as np

from mobjrec.errors import UserError

__all__ = ["by_time", "by_user", "last_out", "last_share", "published", "random"]

Split = Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray]


def published() -> Split:
    """The split that the corpus' publisher gives. UserError if the corpus has none."""

    def split(user: np.ndarray, time: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        if given is None:
            raise UserError("lists.split: published, but this corpus has no published split; use by_time, by_user ...")
        return given.astype(np.int8)

    return split


def by_time(valid: float = 0.1, test: float = 0.1) -> Split:
    """The newest units are test, those before them valid; equal times stay together, on the later side."""
    _check(valid, test)

    def split(user: np.ndarray, time: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        if not len(time):
            return np.zeros(0, np.int8)
        ordered = np.sort(time)
        first_valid, first_test = (
            ordered[int(len(time) * share)] if share < 1 else ordered[-1] + 1 for share in (1 - valid - test, 1 - test)
        )
        return np.where(time >= first_test, 2, np.where(time >= first_valid, 1, 0)).astype(np.int8)

    return split


def last_out(valid: int = 1, test: int = 1) -> Split:
    """Each user's last units are test, those before them valid; with fewer than valid + test + 1 all are for training."""
    for name, count in (("valid", valid), ("test", test)):
        if count < 0:
            raise UserError(f"lists.split: {name} is {count}; it must be 0 or more units")

    def split(user: np.ndarray, time: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        rank, count = _rank_in_user(user)
        left = count - rank
        short = count < valid + test + 1
        return np.where(short, 0, np.where(left <= test, 2, np.where(left <= valid + test, 1, 0))).astype(np.int8)

    return split


def last_share(valid: float = 0.1, test: float = 0.2) -> Split:
    """Each user's first floor((1 - test) n) units are for training, the last `valid` share of them held out; the rest test."""
    _check(valid, test)

    def split(user: np.ndarray, time: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        rank, count = _rank_in_user(user)
        # The small number undoes 0.8 * 5 = 3.9999...
        kept = np.floor((1 - test) * count + 1e-9)
        train = np.floor((1 - valid) * kept + 1e-9)
        return np.where(rank >= kept, 2, np.where(rank >= train, 1, 0)).astype(np.int8)

    return split


def random(valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """Every unit falls by chance, whoever its user is."""
    _check(valid, test)

    def split(user: np.ndarray, time: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        return _by_chance(np.random.default_rng(seed).random(len(user)), valid, test)

    return split


def by_user(valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """Every user falls by chance with all units: test users are never seen in training."""
    _check(valid, test)

    def split(user: np.ndarray, time: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        draws = np.random.default_rng(seed).random(int(user.max()) + 1 if len(user) else 0)
        return _by_chance(draws[user], valid, test)

    return split


def _by_chance(draw: np.ndarray, valid: float, test: float) -> np.ndarray:
    return np.where(draw < test, 2, np.where(draw < test + valid, 1, 0)).astype(np.int8)


def _rank_in_user(user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each unit's place within its user, from 0, and the user's number of units; `user` is sorted."""
    _, first, inverse, count = np.unique(user, return_index=True, return_inverse=True, return_counts=True)
    return np.arange(len(user)) - first[inverse], count[inverse]


def _check(valid: float, test: float) -> None:
    for name, share in (("valid", valid), ("test", test)):
        if not 0 <= share < 1:
            raise UserError(f"lists.split: {name} is {share}; it must be at least 0 and below 1")
    if valid + test >= 1:
        raise UserError(f"lists.split: valid is {valid} and test {test}; together they must leave a share for training")
