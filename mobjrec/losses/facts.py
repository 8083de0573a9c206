"""What a loss says of itself: written on the function, so that one of your own can say it too."""

from collections.abc import Callable
from typing import Any, TypeVar

from mobjrec.types import Facts, Loss

Function = TypeVar("Function", bound=Callable[..., Any])


def states(
    labels: str = "any", *, order: bool = False, relevant: bool = False, positive: bool = True, value: bool = False
) -> Callable[[Function], Function]:
    """A decorator that writes these `Facts` on a loss. ValueError for labels that are not any, gain or share."""
    if labels not in ("any", "gain", "share"):
        raise ValueError(f"labels is {labels!r}; it may be any, gain (0 or more) or share (0 to 1)")

    def write(loss: Function) -> Function:
        loss.facts = Facts(labels, order, relevant, positive, value)
        return loss

    return write


def facts_of(loss: Loss) -> Facts:
    """What a loss, or one with some settings bound, says of itself; one that says nothing takes any label."""
    return getattr(getattr(loss, "func", loss), "facts", Facts())
