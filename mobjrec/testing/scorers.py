"""What every scorer promises, checked on small random inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.types import Array, Column, Scorer, SideSpec, Spec, Tree

LISTS, ITEMS, WIDTH, HISTORY = 4, 5, 16, 3
HEADS = {"click": 1, "satisfied": 1, "stars": 3}
SPEC = Spec(
    vocabulary=0,
    users=SideSpec(ids=(Column("user", 9),)),
    items=SideSpec(ids=(Column("item", 9),)),
    context=SideSpec(ids=(Column("tab", 4), Column("hours", 6, slots=2)), numbers=("hour",)),
    labels={},
    lists=LISTS,
    catalogue=8,
    history=HISTORY,
    objectives=2,
)


def check_scorer(scorer: Scorer, shift_invariant: bool = True) -> None:
    """Every promise of a scorer; AssertionError names the first that does not hold.

    Its heads have their widths and are finite; items are scored one by one (permuting them permutes the scores, what
    stands elsewhere in a list has no influence on scores or gradients); context is read, or refused by a ValueError; a
    shared set [1, L, D] is the same as the set repeated; absent history vectors do not exist; dropout follows a list's
    own key; the preference is read where `conditioned` says so and nowhere else, none being the equal one; a second call
    does not recompile; and a gradient reaches every parameter, for `shift_invariant` under a loss that a shift of a list's
    scores does not change, too. False is for a scorer that was asked for a bias per head.
    """
    from mobjrec.models.functional import bind, init

    spec = _spec(scorer)

    def make(rngs: Any) -> Any:
        return scorer(WIDTH, HEADS, spec, rngs)

    params, bound, traces = jax.jit(init(make))(jax.random.key(0)), bind(make), []
    sequence = getattr(bound(params), "sequence", False)

    @jax.jit
    def score(
        params: Tree, inputs: tuple[Array, ...], keys: Array | None = None, preference: Array | None = None
    ) -> dict[str, Array]:
        traces.append(None)
        return bound(params)(*inputs, preference, keys)

    @jax.jit
    @jax.value_and_grad
    def pulled(params: Tree, inputs: tuple[Array, ...], pulls: dict[str, Array]) -> Array:
        return sum(jnp.sum(pulls[name] * scores) for name, scores in bound(params)(*inputs, None, None).items())

    inputs = _inputs(spec, sequence)
    scores = score(params, inputs)
    _check_heads(scores)
    again = score(jax.tree.map(lambda a: np.asarray(a) + np.float32(0.01), params), _inputs(spec, sequence, seed=1))
    _check(len(traces) == 1, "a second call with other values compiles again")
    _check(not _close(again, scores, 1e-6), "scores depend neither on parameters nor on inputs")
    _check_items(score, pulled, params, inputs, scores)
    _check_context(score, params, inputs, scores)
    _check_shared(score, params, inputs)
    _check_absent_history(score, params, inputs, scores, sequence)
    _check_dropout(score, params, inputs, scores)
    _check_preference(score, params, inputs, scores, getattr(bound(params), "conditioned", False))
    _check_gradients(pulled, params, inputs, scores, shift_invariant)


def _spec(scorer: Scorer) -> Spec:
    """The data that the scorer is shown: without context columns where it refuses them."""
    from mobjrec.models.functional import blank

    try:
        blank(lambda rngs: scorer(WIDTH, HEADS, SPEC, rngs))
    except ValueError as error:
        told = all(name in str(error) for name in ("context", "tab", "hours", "hour"))
        _check(told, f"a dataset with context columns is refused without naming them: {error}")
        return SPEC._replace(context=SideSpec())
    return SPEC


def _inputs(spec: Spec, sequence: bool, seed: int = 0) -> tuple[Array, ...]:
    """users [B, S, D], items [B, L, D], context [B, L, F'], context_ids [B, L, C'], the last of S absent."""
    draw = np.random.default_rng(seed)
    users = draw.normal(size=(LISTS, 1 + HISTORY if sequence else 1, WIDTH)).astype(np.float32)
    users[:, HISTORY:] = 0.0
    items = draw.normal(size=(LISTS, ITEMS, WIDTH)).astype(np.float32)
    slots = sum(column.slots for column in spec.context.ids)
    context = draw.normal(size=(LISTS, ITEMS, len(spec.context.numbers))).astype(np.float32)
    ids = draw.integers(1, 4, size=(LISTS, ITEMS, slots)).astype(np.int32)
    return users, items, context, ids


def _check_heads(scores: dict[str, Array]) -> None:
    found = {name: tuple(value.shape) for name, value in scores.items()}
    wanted = {name: (LISTS, ITEMS) if width == 1 else (LISTS, ITEMS, width) for name, width in HEADS.items()}
    _check(found == wanted, f"heads are {found}, declared were {wanted}")
    _check(all(np.isfinite(value).all() for value in scores.values()), "a score is not finite")


def _check_items(score: Any, pulled: Any, params: Tree, inputs: tuple[Array, ...], scores: dict[str, Array]) -> None:
    users, *of_items = inputs
    order = np.array([3, 0, 4, 1, 2])
    permuted = score(params, (users, *(a[:, order] for a in of_items)))
    there = {name: np.asarray(value)[:, order] for name, value in scores.items()}
    _check(_close(permuted, there), "permuting the items does not permute the scores")

    pulls = _pulls(scores)
    other = (users, *(a.copy() for a in of_items))
    for array, fill in zip(other[1:], (50.0, -50.0, 0), strict=True):
        array[:, 1:] = fill
    for pull in pulls.values():
        pull[:, 1:] = 0.0
    value, grads = pulled(params, inputs, pulls)
    value_other, grads_other = pulled(params, other, pulls)
    _check(_close(value, value_other), "an item's score depends on the other items of its list")
    _check(_close(grads, grads_other), "the gradient of an item's score depends on the other items of its list")


def _check_context(score: Any, params: Tree, inputs: tuple[Array, ...], scores: dict[str, Array]) -> None:
    users, items, context, ids = inputs
    for name, other in (("numbers", (context + np.float32(1.0), ids)), ("ids", (context, ids % 3 + 1))):
        if context.size:
            _check(
                not _close(score(params, (users, items, *other)), scores),
                f"the context's {name} are neither read nor refused; a ValueError naming the columns says that they are not",
            )


def _check_shared(score: Any, params: Tree, inputs: tuple[Array, ...]) -> None:
    users, items, context, ids = inputs
    shared = score(params, (users, items[:1], context, ids))
    repeated = score(params, (users, np.broadcast_to(items[:1], items.shape), context, ids))
    _check(
        _close(shared, repeated), "a shared item set [1, L, D] is not scored as the same set repeated for every list"
    )


def _check_absent_history(
    score: Any, params: Tree, inputs: tuple[Array, ...], scores: dict[str, Array], sequence: bool
) -> None:
    if not sequence:
        return
    users, *of_items = inputs
    _check(_close(score(params, (users[:, :HISTORY], *of_items)), scores), "an absent history vector changes scores")
    others = np.concatenate([users[:, :1], -users[:, 1:]], axis=1)
    _check(not _close(score(params, (others, *of_items)), scores), "the history is not read")


def _check_dropout(score: Any, params: Tree, inputs: tuple[Array, ...], scores: dict[str, Array]) -> None:
    keys = jax.random.split(jax.random.key(2), LISTS)
    whole = score(params, inputs, keys)
    halves = (slice(0, LISTS // 2), slice(LISTS // 2, LISTS))
    parts = [score(params, tuple(a[half] for a in inputs), keys[half]) for half in halves]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    _check(_close(whole, joined), "dropout depends on which lists are computed together, not on a list's key alone")
    _check(_close(score(params, inputs), scores, 0.0), "scores without keys differ between two calls")


def _check_preference(
    score: Any, params: Tree, inputs: tuple[Array, ...], scores: dict[str, Array], conditioned: bool
) -> None:
    equal, other = (score(params, inputs, None, np.float32(wish)) for wish in ((0.5, 0.5), (0.9, 0.1)))
    _check(_close(equal, scores), "scores without a preference are not those of the equal one")
    if conditioned:
        _check(not _close(other, scores), "the scorer is `conditioned` and reads no preference")
    else:
        _check(_close(other, scores), "a preference changes scores; `conditioned = True` says that the scorer reads it")


def _check_gradients(
    pulled: Any, params: Tree, inputs: tuple[Array, ...], scores: dict[str, Array], shift_invariant: bool
) -> None:
    pulls = _pulls(scores)
    if shift_invariant:
        pulls = {name: pull - pull.mean(1, keepdims=True) for name, pull in pulls.items()}
    grads = [
        (path, np.asarray(grad)) for path, grad in jax.tree_util.tree_leaves_with_path(pulled(params, inputs, pulls)[1])
    ]
    largest = max((float(np.abs(grad).max()) for _, grad in grads), default=0.0)
    for path, grad in grads:
        name = jax.tree_util.keystr(path)
        _check(bool(np.isfinite(grad).all()), f"the gradient of {name} is not finite")
        # Rounding leaves about 1e-8 of the largest where the exact gradient is 0.
        _check(float(np.abs(grad).max()) > 1e-6 * largest, f"no gradient reaches {name}")


def _pulls(scores: dict[str, Array]) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    return {name: draw.normal(size=np.shape(value)).astype(np.float32) for name, value in scores.items()}


def _close(left: Tree, right: Tree, tolerance: float = 1e-5) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


def _check(holds: bool, failure: str) -> None:
    if not holds:
        raise AssertionError(failure)
