"""What a loss says of itself: written on the function, so that one of your own can say it too."""

from collections.abc import Callable
from typing import Any, TypeVar

from mobjrec.types import Facts, Loss

Function = TypeVar("Function", bound=Callable[..., Any])


def states(
    labels: str = "any", *, order: bool = False, relevant: bool = False, positive: bool = True, value: bool = False
) -> Callable[[Function], Function]:
    """A decorator that writes these `Facts` on a loss. ValueError for other words for labels."""
    if labels not in ("any", "gain", "grade", "share"):
        words = "any, gain (0 or more), grade (a gain of few levels) or share (0 to 1)"
        raise ValueError(f"labels is {labels!r}; it may be {words}")

    def write(loss: Function) -> Function:
        loss.facts = Facts(labels, order, relevant, positive, value)
        return loss

    return write


def facts_of(loss: Loss) -> Facts:
    """What a loss, or one with some settings bound, says of itself; one that says nothing takes any label."""
    return getattr(getattr(loss, "func", loss), "facts", Facts())
