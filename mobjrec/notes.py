"""Warnings as people read them: a sentence on stderr, once, without the line of code that gave it."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def shown() -> Iterator[None]:
    """Inside, every warning is `mobjrec: note: ...` on stderr, each text once; which are shown stays Python's to say."""
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if text not in told:
            told.add(text)
            print(f"mobjrec: note: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
