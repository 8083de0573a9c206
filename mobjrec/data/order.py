"""The order of the lists: a function of (seed, epoch), so nothing has to be remembered to go on."""

import math

import numpy as np


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """A permutation [count] drawn from the pair; seed + epoch would make run 1's second epoch equal run 2's first."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(count)


def steps_per_epoch(count: int, batch: int) -> int:
    """Steps in which every list is met exactly once."""
    return math.ceil(count / batch)


def rows(seed: int, step: int, count: int, batch: int) -> np.ndarray:
    """The lists [batch] of this step (from 0); -1 pads the last batch of an epoch."""
    epoch, place = divmod(step, steps_per_epoch(count, batch))
    found = permutation(seed, epoch, count)[place * batch : (place + 1) * batch]
    return np.concatenate([found, np.full(batch - len(found), -1)])


def random(seed: int, step: int) -> np.random.Generator:
    """What this step draws its candidates from."""
    return np.random.default_rng(np.random.SeedSequence([seed, step, 1]))
