"""Memory that ran out, as one sentence: what was asked for, the largest arrays, and the setting that makes it less."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params

from mobjrec.config import Config
from mobjrec.errors import NumericError
from mobjrec.types import Batch, Texts, Tree

LARGEST = 3


class Held(NamedTuple):
    """An array that a program holds: what it is called, and how large it is."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.type}{list(self.shape)} of {self.bytes / 2**20:,.1f} MiB"


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out; a full disk says RESOURCE_EXHAUSTED too, but is no error of JAX's."""
    exhausted = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return exhausted or isinstance(error, MemoryError)


@contextmanager
def told(sentence: Callable[[BaseException], str]) -> Iterator[None]:
    """Within it, memory that runs out is a NumericError with this sentence."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not ran_out(error):
            raise
        raise NumericError(sentence(error)) from error


def of_step(
    error: BaseException, config: Config, devices: int, step: Callable | None, state: Tree, batch: Batch | None
) -> str:
    """The sentence for a training step. step: the mapped one, traced again for its arrays"""
    if batch is None:
        return _sentence(error, "building a batch", [], advice(config, devices, 0))
    texts = {"user": batch.user_texts, "item": batch.item_texts}
    rows = {side: found for side, found in ((side, _rows(one)) for side, one in texts.items()) if found}
    words = [f"{batch.where.shape[0]} lists of {batch.where.shape[1]} items"]
    words += [f"{side} texts in {count} packed rows of {length} tokens" for side, (count, length) in rows.items()]
    held = []
    if step is not None:
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (state, batch))
        held = largest(like[0], jax.jit(step).trace(*like).jaxpr.jaxpr)
    most = max((count for count, _ in rows.values()), default=0)
    return _sentence(error, "training on " + ", ".join(words), held, advice(config, devices, most))


def of_evaluation(error: BaseException, what: str, params: Tree) -> str:
    """The sentence for an evaluation. what: its split and sizes, in words"""
    return _sentence(
        error,
        f"measuring {what}",
        largest(params),
        "Rank fewer items a list (evaluate.candidates, such as {use: uniform, negatives: 100}), or shorter texts "
        "(batch.user_row, batch.item_row)",
    )


def advice(config: Config, devices: int, rows: int) -> str:
    """The settings to change, with values. rows: packed rows of the side that has most, 0 where no text is encoded"""
    words, chunk, lists = [], smaller(rows // devices, config.batch.chunk_rows), config.batch.lists
    if chunk is not None:
        now = f"now {config.batch.chunk_rows or 'null, all rows at once'}; the result stays the same"
        words.append(f"batch.chunk_rows={chunk} ({now})")
    if lists > devices:
        words.append(f"batch.lists={max(devices, lists // 2 // devices * devices)} (now {lists})")
    return "Set " + ", then ".join(words) if words else "Take a smaller model, or more devices"


def smaller(rows: int, chunk: int | None) -> int | None:
    """Rows a chunk, about half of now: the largest divisor of `rows` above a quarter, else a power of two. None at 1."""
    now = min(chunk or rows, rows)
    if now < 2:
        return None
    divisors = [n for n in range(now // 2, now // 4, -1) if rows % n == 0]
    return divisors[0] if divisors else 1 << ((now // 2).bit_length() - 1)


def largest(arguments: Tree, program: Jaxpr | None = None) -> list[str]:
    """The largest arrays of a traced program: its arguments by path, what it makes by the operation that makes it."""
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    held = {_held(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves}
    held |= set() if program is None else {_held(name, made) for name, made in _made(program)}
    return [str(one) for one in sorted(held, key=lambda one: (-one.bytes, one))[:LARGEST]]


def _made(program: Jaxpr) -> Iterator[tuple[str, Any]]:
    """What each operation makes, those of inner programs too, which say more than the loop or call around them."""
    for line in program.eqns:
        inner = list(jaxprs_in_params(line.params))
        for part in inner:
            yield from _made(part)
        if not inner or line.primitive.name == "scan":
            yield from ((line.primitive.name, made.aval) for made in line.outvars if hasattr(made.aval, "shape"))


def _held(name: str, like: Any) -> Held:
    size = getattr(like.dtype, "itemsize", 4)
    return Held(name, tuple(like.shape), str(like.dtype), math.prod(like.shape) * size)


def _rows(texts: Texts | None) -> tuple[int, int] | None:
    """Packed rows and tokens a row; None where nothing is encoded."""
    return None if texts is None or texts.slot is None else texts.slot.shape


def _sentence(error: BaseException, what: str, held: list[str], todo: str) -> str:
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
    known = f"; the largest arrays: {', '.join(held)}" if held else ""
    return f"memory ran out while {what}{known}; the error was {said}. {todo}"
