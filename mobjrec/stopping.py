"""Signals that ask a run to stop: at once where nothing is to be saved, else after the step that runs and its save."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mobjrec.errors import Stopped
from mobjrec.inference import Functions


@contextmanager
def stopping(asked: list[int] | None = None, *, at_once: bool = False) -> Iterator[list[int]]:
    """A list, `asked` if given, that gets the number of a SIGTERM or SIGINT; a second signal stops at once.

    at_once: the first one does. Stopped in place of the KeyboardInterrupt by which it does.
    """
    asked, mine = [] if asked is None else asked, []

    def note(number: int, _: Any) -> None:
        mine.append(number)
        if at_once or len(mine) > 1:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield asked
    except KeyboardInterrupt:
        raise Stopped(mine[0], saved=False) if mine else KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def bounded(functions: Functions, asked: list[int], grace: float) -> Functions:
    """Functions that raise Stopped where they are called `grace` seconds after the first call with a signal in `asked`.

    So an evaluation is given up between two of its blocks, be it of texts or of lists.
    """
    noticed: list[float] = []

    def checked(function: Callable) -> Callable:
        def call(*given: Any) -> Any:
            if asked:
                noticed.append(time.monotonic())
                if noticed[-1] - noticed[0] >= grace:
                    raise Stopped(asked[0])
            return function(*given)

        return call

    return Functions(*(function and checked(function) for function in functions))
