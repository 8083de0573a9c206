"""Rankers, text encoders and scorers. The only room that imports flax.

A model is functions over a plain nested dict of arrays (`types.Model`); modules are a way to write them, not a way to
hold parameters. Dropout draws its masks from keys, one per row, user or shared set; None means no dropout.
"""

from mobjrec.models.bert import bert
from mobjrec.models.conditioned import conditioned
from mobjrec.models.dot import cosine, dot
from mobjrec.models.mlp import mlp
from mobjrec.models.ranker import ranker
from mobjrec.models.transformer import transformer

__all__ = ["bert", "conditioned", "cosine", "dot", "mlp", "ranker", "transformer"]
