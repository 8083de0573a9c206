"""What every text encoder promises, checked on a few random token sequences packed in several ways."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.types import Array, Encoder, Texts, Tree

# One shape for every packing: a shape more is a compilation more.
VOCABULARY, POSITIONS, ROWS, SLOTS = 30, 12, 6, 4
LENGTHS = (5, 3, 7, 2, 1, 6)
# For each way of packing, the texts of each row, in order; the rows that follow are empty.
PACKED = ((2, 0), (5, 1, 3), (4,))
OTHER_ORDER = ((3, 5), (), (0, 4, 1), (2,))
ALONE = ((0,), (1,), (2,), (3,), (4,), (5,))
Call = Callable[..., Array]


def check_encoder(encoder: Encoder) -> None:
    """Every promise of an encoder; AssertionError names the first that does not hold.

    Embeddings [R, S, width] are finite and 0 for an unused slot; how texts are packed, in which order, and what stands
    in the padding do not matter; a text's embedding and its gradient do not depend on its neighbours; keys=None is
    deterministic; dropout follows a row's own key; a second call does not recompile; and a gradient reaches every
    parameter outside the attributes that the module names in `frozen`.
    """
    from mobjrec.models.functional import bind, init

    def make(rngs: Any) -> Any:
        return encoder(VOCABULARY, POSITIONS, rngs)

    # Not compiled: an encoder may read its first parameters from a file, which tracing leaves out.
    params, bound, traces = _moved(init(make)(jax.random.key(0))), bind(make), []
    module = bound(params)

    @jax.jit
    def encode(params: Tree, texts: Texts, keys: Array | None = None) -> Array:
        traces.append(None)
        return bound(params)(texts, keys)

    @jax.jit
    def gradient(params: Tree, texts: Texts, pull: Array) -> Tree:
        return jax.grad(lambda p: jnp.sum(pull * bound(p)(texts, None)))(params)

    sequences = _sequences(seed=0)
    found = encode(params, _packed(sequences, PACKED))
    _check_form(found, module.width)
    other = encode(params, _packed(_sequences(seed=1), PACKED))
    _check(len(traces) == 1, "a second call with other texts compiles again")
    _check(not _close(_of_texts(found, PACKED), _of_texts(other, PACKED)), "embeddings do not depend on the tokens")
    _check_packing(encode, params, sequences, _of_texts(found, PACKED))
    _check_dropout(encode, params, _packed(sequences, PACKED))
    frozen = frozenset(getattr(module, "frozen", ()))
    pull = np.random.default_rng(4).normal(size=found.shape)
    _check_gradients(gradient(params, _packed(sequences, PACKED), pull), frozen)
    _check_neighbours(gradient, params, sequences, found.shape)


def _moved(params: Tree) -> Tree:
    """Parameters away from their start, where attention is all but uniform and some gradients all but 0."""
    draw = np.random.default_rng(6)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + (0.3 * draw.normal(size=leaf.shape)).astype(leaf.dtype), params)


def _sequences(seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(1, VOCABULARY, size=length) for length in LENGTHS]


def _packed(sequences: list[np.ndarray], rows: tuple[tuple[int, ...], ...], padding: int = 0) -> Texts:
    """These texts in these rows; `padding` stands for token and position of padding."""
    tokens, position = (np.full((ROWS, POSITIONS), padding, np.int32) for _ in range(2))
    slot, used = np.zeros((ROWS, POSITIONS), np.int32), np.zeros((ROWS, SLOTS), bool)
    for row, texts in enumerate(rows):
        begin = 0
        for number, text in enumerate(texts):
            place = slice(begin, begin + LENGTHS[text])
            tokens[row, place], position[row, place] = sequences[text], np.arange(LENGTHS[text])
            slot[row, place], used[row, number] = number + 1, True
            begin += LENGTHS[text]
    return Texts(tokens, position, slot, used)


def _of_texts(found: Array, rows: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """[texts, D] in the texts' own order."""
    places = {text: (row, number) for row, texts in enumerate(rows) for number, text in enumerate(texts)}
    return np.stack([np.asarray(found)[places[text]] for text in range(len(LENGTHS))])


def _check_form(found: Array, width: int) -> None:
    _check(found.shape == (ROWS, SLOTS, width), f"embeddings have shape {found.shape}, not {(ROWS, SLOTS, width)}")
    _check(bool(np.isfinite(found).all()), "an embedding is not finite")
    unused = ~_packed(_sequences(0), PACKED).used
    _check(not np.asarray(found)[unused].any(), "the embedding of an unused slot is not 0")


def _check_packing(encode: Call, params: Tree, sequences: list[np.ndarray], wanted: np.ndarray) -> None:
    for name, rows in (("a text alone in its row", ALONE), ("another order and an empty row", OTHER_ORDER)):
        found = encode(params, _packed(sequences, rows))
        _check(_close(_of_texts(found, rows), wanted), f"{name}: not the embedding that the text has in a full row")
    found = encode(params, _packed(sequences, PACKED, padding=3))
    _check(_close(_of_texts(found, PACKED), wanted), "what stands in the padding changes embeddings")


def _check_dropout(encode: Call, params: Tree, texts: Texts) -> None:
    keys = jax.random.split(jax.random.key(3), ROWS)
    whole = np.asarray(encode(params, texts, keys))
    order = np.array([4, 2, 0, 5, 1, 3])
    moved = encode(params, jax.tree.map(lambda a: a[order], texts), keys[order])
    _check(_close(moved, whole[order]), "dropout depends on a row's place, not on its key alone")
    others = jnp.concatenate([keys[:1], jax.random.split(jax.random.key(5), ROWS - 1)])
    found = np.asarray(encode(params, texts, others))
    _check(_close(found[0], whole[0]), "dropout of a row depends on the keys of other rows")
    _check(
        _close(encode(params, texts), encode(params, texts), 0.0), "embeddings without keys differ between two calls"
    )


def _check_neighbours(gradient: Call, params: Tree, sequences: list[np.ndarray], shape: tuple[int, ...]) -> None:
    kept = PACKED[0][0]
    pull = np.zeros(shape, np.float32)
    pull[0, 0] = np.random.default_rng(2).normal(size=shape[-1])
    others = [s if text == kept else o for text, (s, o) in enumerate(zip(sequences, _sequences(1), strict=True))]
    left, right = (gradient(params, _packed(given, PACKED), pull) for given in (sequences, others))
    _check(_close(left, right), "the gradient of a text's embedding depends on the other texts of its batch")


def _check_gradients(grads: Tree, frozen: frozenset[str]) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, grads))
    leaves = [(path, leaf) for path, leaf in leaves if path[0].key not in frozen]
    largest = max((float(np.abs(leaf).max()) for _, leaf in leaves), default=0.0)
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        _check(bool(np.isfinite(leaf).all()), f"the gradient of {name} is not finite")
        # Rounding leaves about 1e-8 of the largest where the exact gradient is 0.
        _check(float(np.abs(leaf).max()) > 1e-6 * largest, f"no gradient reaches {name}")


def _close(left: Tree, right: Tree, tolerance: float = 1e-5) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


def _check(holds: bool, failure: str) -> None:
    if not holds:
        raise AssertionError(failure)
