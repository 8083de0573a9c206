"""Why a metric says nothing of a list: counted by reason, never entered as 0 or 1."""

import numpy as np

# In this order, the first that holds; "" = relevant items and others, no label below 0. The last is of metrics of items.
REASONS = (
    "", "no item", "no observed label", "nothing relevant", "only relevant", "no gain: labels below 0", "a single item"
)  # fmt: skip
# Of these lists a metric over all items together has no item, and one over pairs within lists no pair.
ITEMLESS, PAIRLESS = (1, 2), (1, 2, 3, 4)


def codes(labels: np.ndarray, observed: np.ndarray, there: np.ndarray) -> np.ndarray:
    """[B] places in REASONS of lists [B, L]. there: the items that are ranked   observed: those of them with a label"""
    observed = observed & there
    relevant = (observed & (labels > 0)).sum(-1)
    below = (observed & (labels < 0)).any(-1)
    holds = [~there.any(-1), ~observed.any(-1), relevant == 0, relevant == observed.sum(-1), below]
    return np.select(holds, range(1, len(holds) + 1), 0)


def item_codes(there: np.ndarray) -> np.ndarray:
    """[B] places in REASONS for metrics that look at the items shown and at no label."""
    return np.select([~there.any(-1), there.sum(-1) == 1], [1, REASONS.index("a single item")], 0)


def counted(codes: np.ndarray) -> dict[str, int]:
    """{reason: how many lists}, without those of none."""
    return {REASONS[code]: int(count) for code, count in enumerate(np.bincount(codes, minlength=1)) if count}
