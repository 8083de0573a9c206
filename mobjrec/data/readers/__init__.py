"""Readers: one function a corpus, path -> Corpus. Adding one is a file here and its name in `__all__`."""

from mobjrec.data.readers.kuairand import kuairand
from mobjrec.data.readers.ml_100k import ml_100k
from mobjrec.data.readers.ranklens import ranklens
from mobjrec.data.readers.synthetic import synthetic
from mobjrec.data.readers.table import table

__all__ = ["kuairand", "ml_100k", "ranklens", "synthetic", "table"]
