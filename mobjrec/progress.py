"""Live progress on a terminal; one plain line an evaluation where there is none."""

import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# The smoothed loss is shown: a single step's is noise.
DECAY = 0.9


class Shown:
    """What is on the screen while a run trains."""

    def __init__(self, console: Console, steps: int, done: int, lists: int):
        self.console = console
        self.lists = lists
        self.losses: dict[str, float] = {}
        self.began, self.first = time.monotonic(), done
        columns = (
            TextColumn("[bold]training[/]"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=steps, completed=done, losses="", speed="")

    def step(self, number: int, losses: Mapping[str, float]) -> None:
        """`number` updates are done; the last one had these losses (NaN: the objective had no label in it)."""
        for name, loss in losses.items():
            if loss == loss:
                self.losses[name] = DECAY * self.losses.get(name, loss) + (1 - DECAY) * loss
        text = "  ".join(f"{name} {loss:.3f}" for name, loss in self.losses.items())
        speed = (number - self.first) * self.lists / max(time.monotonic() - self.began, 1e-9)
        self.bar.update(self.task, completed=number, losses=text, speed=f"{speed:,.0f} lists/s")

    def evaluated(self, number: int, values: Mapping[str, Any]) -> None:
        """One line with a few metrics."""
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in self.losses.items())
        self.say(f"step {number}: {text}" + (f"   loss: {losses}" if losses else ""))

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)


@contextmanager
def shown(steps: int, done: int, lists: int, quiet: bool = False):
    """A `Shown` for the time of the block. quiet: nothing is printed."""
    console = Console(file=sys.stderr, quiet=quiet)
    view = Shown(console, steps, done, lists)
    with view.bar:
        yield view
