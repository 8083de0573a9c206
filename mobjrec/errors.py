"""The mistakes that are the user's or the machine's, each with the exit code that the command line gives it.

The message names what, where, what was found and expected, and what to do. None is a kind of another: `MISTAKES` are
all of them.
"""

import difflib
import signal
from collections.abc import Iterable


def closest(name: str, names: Iterable[str]) -> str:
    """The name that a misspelt one was meant for, "" where none is near."""
    return next(iter(difflib.get_close_matches(name[:100], list(names), n=1)), "")


def meant(name: str, names: Iterable[str]) -> str:
    """A hint to hang on a message: "; did you mean NAME?", or ""."""
    near = closest(name, names)
    return f"; did you mean {near}?" if near else ""


class UserError(Exception):
    """Bad input or config. Exit code 2."""

    code = 2


class RunFolderError(Exception):
    """A run folder that is damaged, locked or not ours. Exit code 3."""

    code = 3


class NumericError(Exception):
    """A loss or gradient that is not finite, a problem that was not solved, or memory that ran out. Exit code 4."""

    code = 4


class PeerError(Exception):
    """A process or machine that does not answer. Exit code 5."""

    code = 5


class Stopped(Exception):
    """No mistake: a signal asked the run to save and stop; `code` is the exit code that says so.

    saved: whether the run did save, and not stop at once
    """

    def __init__(self, number: int, saved: bool = True):
        how, where = ("", "here") if saved else ("at once ", "the last sealed step")
        super().__init__(f"stopped {how}by {signal.Signals(number).name}; the same command goes on from {where}")
        self.number, self.saved, self.code = number, saved, 128 + number


MISTAKES = (UserError, RunFolderError, NumericError, PeerError)
