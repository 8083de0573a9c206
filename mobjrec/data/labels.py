"""Labels derived from feedback columns: what the config writes under `labels`, one factory per rule.

A factory takes settings and returns a function (corpus, {label: Labels} so far) -> Labels. A source is looked up among
the labels derived so far, then among feedback columns, numbers of the event and numbers of its item (a movie's votes).
`known` says where the label speaks:

    logged       where all its sources are observed (the default)
    everywhere   the same, and an item that was never logged for the user counts as an observed 0
    {after: X}   where its sources are observed and X > 0: satisfaction is asked of those who clicked

A rule that is fitted reads the events of the training split alone: `corpus.events.split` is then that of the run.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from mobjrec.types import Corpus, Labels

__all__ = ["at_least", "copy", "index", "quantile", "share"]


class After(NamedTuple):
    """The rule `known: {after: X}`: the label is known only where label or feedback X is above 0."""

    after: str


Known = Literal["logged", "everywhere"] | After
Derive = Callable[[Corpus, dict[str, Labels]], Labels]


def at_least(of: str, value: float, known: Known = "logged") -> Derive:
    """1 where `of` reaches `value`, else 0: ratings of 4 and more, plays of 80 % and more.

    NaN where `of` is not observed or `known` says so. ValueError if `value` is not finite or the corpus has no `of`.
    """
    if not np.isfinite(value):
        raise ValueError(f"value of at_least is {value}; expected a finite number in the unit of {of!r}")

    def derive(corpus: Corpus, labels: dict[str, Labels]) -> Labels:
        source = _column(of, corpus, labels)
        reached = np.where(np.isnan(source), np.nan, source >= value).astype(np.float32)
        return _known(reached, known, corpus, labels, unit="0 or 1")

    return derive


def index(of: dict[str, float], known: Known = "logged", unit: str = "") -> Derive:
    """Weighted sum of several signals, sum_s weight_s * s: one scale of satisfaction out of like, share, dwell.

    NaN where any signal is not observed or `known` says so. ValueError without signals, on a weight that is not finite,
    or if the corpus has not all of them.
    """
    if not of:
        raise ValueError("of names no signals; expected a mapping such as {like: 1, comment: 2}")
    wrong = {name: weight for name, weight in of.items() if not np.isfinite(weight)}
    if wrong:
        raise ValueError(f"of has the weights {wrong}; expected finite numbers")

    def derive(corpus: Corpus, labels: dict[str, Labels]) -> Labels:
        total = np.zeros(len(corpus.events.user), np.float64)
        for name, weight in of.items():
            total += weight * _column(name, corpus, labels)
        return _known(total.astype(np.float32), known, corpus, labels, unit=unit)

    return derive


def share(of: str, duration: str, known: Known = "logged") -> Derive:
    """`of` divided by `duration`: watch time as a share of the video's length; above 1 for what was watched again.

    Both in one unit. NaN where either is not observed, where duration <= 0, or where `known` says so. ValueError if the
    corpus has not both.
    """

    def derive(corpus: Corpus, labels: dict[str, Labels]) -> Labels:
        length = _column(duration, corpus, labels)
        part = np.full(len(length), np.nan, np.float32)
        np.divide(_column(of, corpus, labels), length, out=part, where=length > 0)
        return _known(part, known, corpus, labels, unit=f"share of {duration}")

    return derive


def quantile(of: str, within: str, groups: int = 10, known: Known = "logged") -> Derive:
    """Share of the training values that `of` exceeds, among events of like `within`: watch time freed of duration.

    (count below + count equal / 2) / count, in [0, 1], over the training events of the value's group; groups are cut at
    the training quantiles of `within`, at most `groups` of them. Zhan et al. 2022 (D2Q), section 4: with their groups of
    equal size, and ties at their middle. Values beyond all training values of their group get 0 or 1.

    NaN where either is not observed or `known` says so; only where the label is known is it fitted. ValueError if
    `groups` < 1, if the corpus has not both or no split, or if no training event knows both.
    """
    if groups < 1:
        raise ValueError(f"groups of quantile is {groups}; expected a whole number of at least 1")

    def derive(corpus: Corpus, labels: dict[str, Labels]) -> Labels:
        if corpus.events.split is None:
            raise ValueError("quantile is fitted on training events, but these events have no split")
        found = _known(_column(of, corpus, labels), known, corpus, labels, unit=f"quantile within {within}")
        beside = _column(within, corpus, labels)
        there = np.isfinite(found.value) & np.isfinite(beside)
        fitted = there & (corpus.events.split == 0)
        if not fitted.any():
            raise ValueError(f"no training event knows both {of} and {within}, so nothing can be fitted")
        # Cuts are training values: every group holds one.
        cuts = np.quantile(beside[fitted], np.arange(1, groups) / groups, method="higher")
        group = np.searchsorted(np.unique(cuts[cuts > beside[fitted].min()]), beside, side="right")
        value = np.full(len(beside), np.nan, np.float32)
        for number in np.unique(group[there]):
            inside = group == number
            known_values = np.sort(found.value[inside & fitted])
            own = found.value[inside & there]
            below, until = (np.searchsorted(known_values, own, side) for side in ("left", "right"))
            value[inside & there] = (below + until) / (2 * len(known_values))
        return found._replace(value=value)

    return derive


def copy(of: str, known: Known = "logged") -> Derive:
    """`of` itself under another name or another rule of `known`. ValueError if the corpus has no `of`."""

    def derive(corpus: Corpus, labels: dict[str, Labels]) -> Labels:
        unit = labels[of].unit if of in labels else corpus.units.get(of, "")
        return _known(_column(of, corpus, labels), known, corpus, labels, unit=unit)

    return derive


def outside(corpus: Corpus, values: np.ndarray, share: bool, file: str = "") -> str:
    """Where a label [E] is no share of 1, or else no gain, how often, and what to do; "" where it is, or is unknown.

    A share lies in 0 to 1, a gain is 0 or more. file: whose rows are the events, "" where none is
    """
    wrong = np.flatnonzero((values < 0) | (values > 1) if share else values < 0)
    if not len(wrong):
        return ""
    row = wrong[0]
    user, item = (table.id[rows[row]] for table, rows in zip(corpus[:2], corpus.events[:2], strict=True))
    place = f"{file}, row {row + 1}" if file else f"event {row}"
    if share:
        takes = "a probability is learnt from 0 to 1: derive a label, {use: at_least, of: NAME, value: NUMBER}"
    else:
        takes = "gains are 0 or more: derive a label, or estimate this one in its unit (squared, huber)"
    return (
        f"is {values[row]:g} for user {str(user)!r} and item {str(item)!r} ({place}; {len(wrong)} such events); {takes}"
    )


def _known(value: np.ndarray, known: Known, corpus: Corpus, labels: dict[str, Labels], unit: str) -> Labels:
    if not isinstance(known, After):
        return Labels(value, everywhere=known == "everywhere", unit=unit)
    asked = _column(known.after, corpus, labels) > 0
    return Labels(np.where(asked, value, np.float32(np.nan)), unit=unit)


def _column(name: str, corpus: Corpus, labels: dict[str, Labels]) -> np.ndarray:
    """[E] the label, feedback, number of the event, or number of its item that is called `name`, in this order."""
    events, items = corpus.events, corpus.items
    if name in labels:
        return labels[name].value
    if name in events.feedback:
        return events.feedback[name]
    if name in events.numbers:
        return events.numbers[name]
    if name in items.numbers:
        return items.numbers[name][events.item]
    there = dict.fromkeys([*labels, *events.feedback, *events.numbers, *items.numbers])
    kinds = "label, feedback, event number or item number"
    raise ValueError(f"no {kinds} is called {name!r}; there are: {', '.join(there) or 'none'}")
