"""Keys of metrics: what an order does to a label."""

# In the place of a label in keys of metrics that look at the items shown and at no label.
ITEMS = "items"


def keyed(order: str, label: str, metric: str, segment: str = "") -> str:
    """The key of what an order, an objective's or the utility's, does to a label: LABEL/metric where both have one name.

    segment: the part of items or users that it is of, `[seen items]`, "" for all
    """
    return f"{label if order == label else f'{order}:{label}'}{segment}/{metric}"
