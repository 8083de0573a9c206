"""Readers: one function a corpus, path -> Corpus. Adding one is a file here and its name in `__all__`."""

from mobjrec.data.readers.table import table

__all__ = ["table"]
