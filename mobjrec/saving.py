"""Saving beside the loop: the state is copied and handed over, one thread writes, hashes and seals it.

The thread is ours, not that of orbax's AsyncCheckpointer: the seal comes after orbax is done, so a thread is needed for
it in any case, and orbax hands TensorStore what it was given, which on a CPU the next step takes over (donated).
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, final

from mobjrec import checkpoint
from mobjrec.checkpoint import RECENT
from mobjrec.errors import RunFolderError
from mobjrec.types import Tree

# Orbax also logs what it raises, traceback and all; a save that fails is one sentence.
logging.getLogger("absl").addFilter(lambda entry: not entry.exc_info)


@final
class Saver:
    """Saves of one run, at most one under way. A save that fails is told of and passes; the second in a row does not.

    content: what every seal holds besides what `save` is given   say: takes the sentence on a save that failed

    Leaving a `with` block waits for the save under way, so that no thread is left and the lock is not given back before.
    """

    def __init__(self, folder: Path, content: Mapping[str, Any], say: Callable[[str], None]):
        self._folder, self._content, self._say = folder, content, say
        self._writer = ThreadPoolExecutor(1, "save")
        self._under_way: tuple[str, Future] | None = None
        # Names (RECENT, BEST) whose last save failed; each counts for itself.
        self._failed: set[str] = set()

    def save(
        self, state: Tree, step: int, seal: Mapping[str, Any], *, name: str = RECENT, keep: int, last: bool = False
    ) -> None:
        """Hand over what checkpoint.save takes, once the save before is settled.

        last: no save follows, so that it is waited for, and tried again at once if it fails
        RunFolderError where training has to stop: two saves in a row of one `name` failed.
        """
        self.settle()
        told, copy = {**self._content, **seal}, checkpoint.copied(state)
        write = partial(checkpoint.write, self._folder, copy, step, told, name=name, keep=keep)
        self._under_way = name, self._writer.submit(write)
        if last and self.settle("it is tried again"):
            self._under_way = name, self._writer.submit(write)
            self.settle()

    def settle(self, then: str = "training goes on and stops if the next save fails, too") -> str:
        """The name of the save under way where it failed, "" where it is sealed or there is none; waits for it.

        RunFolderError when training has to stop; what was sealed before is as it was.
        """
        if self._under_way is None:
            return ""
        (name, written), self._under_way = self._under_way, None
        error = failure(written)
        if not error:
            self._failed.discard(name)
            return ""
        if name in self._failed:
            said = f"{error}; two saves in a row failed, so training stops. The steps sealed before are intact: "
            raise RunFolderError(f"{said}free space and give the same command again")
        self._failed.add(name)
        self._say(f"{error}; {then}")
        return name

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(wait=True)


def failure(written: Future) -> str:
    """Why a save failed, "" if it did not."""
    try:
        written.result()
    except RunFolderError as error:
        return str(error)
    return ""
