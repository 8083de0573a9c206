"""Public conformance suites: each checks one kind of thing against its promises and raises AssertionError on the first
that does not hold. They need neither pytest nor hypothesis.
"""

from mobjrec.testing.corpora import check_corpus
from mobjrec.testing.encoders import check_encoder
from mobjrec.testing.losses import check_loss, check_metric
from mobjrec.testing.objectives import check_objective
from mobjrec.testing.scorers import check_scorer
from mobjrec.testing.weightings import check_weighting

__all__ = [
    "check_corpus",
    "check_encoder",
    "check_loss",
    "check_metric",
    "check_objective",
    "check_scorer",
    "check_weighting",
]
