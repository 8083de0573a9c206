"""Contrastive objectives that need more than scores and labels: how candidates were drawn, thresholds, adversaries."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobjrec import losses
from mobjrec.objectives.single import single_settled, tried
from mobjrec.types import Array, Batch, Clock, Objective, Outputs, Spec, Tree

Valued = tuple[Array, Array, Tree]


def sampled_softmax(
    label: str = "click",
    head: str = "",
    temperature: float = 1.0,
    correct: bool = True,
    hardest: int | None = None,
) -> Objective:
    """Softmax of each relevant item against all others of its list, corrected for how these were drawn (logQ).

    A candidate that is in the set with probability q stands for 1 / q of its kind, so its score is lowered by log q and
    the sum estimates that over the catalogue. Jean et al. 2015; Yi et al. 2019. Candidates as logged are not corrected
    (their log_q is 0), nor any with correct: false. What the candidates mask (false negatives) is in no sum.
    hardest: of a list's others only so many, the highest scored now, are negatives (Zhang et al. 2013): with a wide set of
        candidates, hard negatives at no further cost
    ValueError unless temperature > 0 and hardest is at least 1.
    """
    tried(losses.sampled_softmax, {"temperature": temperature})
    if hardest is not None and hardest < 1:
        raise ValueError(f"hardest is {hardest}; it must be at least 1, or null for all")
    head = head or label

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> Valued:
        given = _given(outputs, batch, label, head)
        if hardest is not None:
            given["where"] = losses.hardest(given["scores"], given["labels"], given["where"], hardest)
        log_q = jnp.broadcast_to(batch.log_q, given["where"].shape) if correct else None
        return losses.sampled_softmax(**given, temperature=temperature, log_q=log_q), _speaks(given), memory

    return _objective(value, label, head, positive=True)


def sl_at_k(
    label: str = "click",
    head: str = "",
    k: int = 20,
    temperature: float = 0.2,
    temperature_weight: float = 2.5,
    rate: float = 0.5,
) -> Objective:
    """Softmax loss near the k-th score of the catalogue, which is remembered for each list. Yang et al. 2025, SL@K.

    As there the threshold is a quantile estimated from the candidates, a drawn one counting for as many items as it
    stands for. They estimate it anew every few epochs, for it takes a pass of its own; here scores are at hand, so it moves
    by `rate` of the way whenever the list is seen, and 1 is the current k-th largest alone.
    ValueError unless k >= 1, temperatures are above 0, and rate is above 0 and at most 1.
    """
    settings = {"k": k, "temperature": temperature, "temperature_weight": temperature_weight}
    tried(losses.sl_at_k, settings)
    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate}; it must be above 0 and at most 1")
    head = head or label

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        return (), {"beta": jnp.zeros(spec.lists), "seen": jnp.zeros(spec.lists)}

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> Valued:
        given = _given(outputs, batch, label, head)
        count = jnp.exp(-jnp.where(given["where"], batch.log_q, 0.0))
        now = _threshold(jax.lax.stop_gradient(given["scores"]), given["where"], count, k)
        lists = len(memory["beta"])
        known = (batch.row >= 0) & given["where"].any(-1)
        row = jnp.where(known, batch.row, lists)
        old = memory["beta"].at[row].get(mode="fill", fill_value=0.0)
        first = memory["seen"].at[row].get(mode="fill", fill_value=1.0) == 0
        step = jnp.where(first, 1.0, rate) * (now - old)
        beta = jnp.where(known, old + step, now)
        # Added, not set: what several devices add is summed.
        memory = {
            "beta": memory["beta"].at[row].add(step, mode="drop"),
            "seen": memory["seen"].at[row].add(1.0 * first, mode="drop"),
        }
        return losses.sl_at_k(**given, **settings, beta=beta), _speaks(given), memory

    return _objective(value, label, head, positive=False, init=init)


def adv_infonce(
    label: str = "click", head: str = "", temperature: float = 0.2, negatives: float = 64.0, every: int = 5
) -> Objective:
    """InfoNCE against an adversary that makes negatives harder. Zhang et al. 2023, AdvInfoNCE.

    The adversary's hardness of an item is slope x its score, the score taken as it stands, and, where the model reads
    the item's id, a number of the item's own. It ascends, behind a reversed gradient, in every `every`-th epoch. Theirs is
    a second embedding model of its own small rate: put `objectives/NAME/*` into an optimizer group of a low rate. Unbounded,
    it ends at the hardest negative alone.
    ValueError unless temperature and negatives are above 0 and every is at least 1.
    """
    tried(losses.adv_infonce, {"temperature": temperature, "negatives": negatives})
    if every < 1:
        raise ValueError(f"every is {every}; it must be at least 1")
    head = head or label

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        column = 0
        for one in spec.items.ids:
            if one.name == "item":
                return {"slope": jnp.zeros(()), "item": jnp.zeros(one.size)}, {"column": jnp.int32(column)}
            column += one.slots
        return {"slope": jnp.zeros(())}, ()

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> Valued:
        given = _given(outputs, batch, label, head)
        climbs = clock.epoch % every == 0
        theirs = jax.tree.map(lambda one: jnp.where(climbs, _reversed(one), jax.lax.stop_gradient(one)), params)
        scores = jnp.where(given["where"], given["scores"], 0.0)
        g = theirs["slope"] * jax.lax.stop_gradient(scores)
        if "item" in theirs:
            g = g + theirs["item"][jnp.take(batch.items.ids, memory["column"], axis=-1)]
        loss = losses.adv_infonce(**given, temperature=temperature, negatives=negatives, g=g)
        return loss, _speaks(given), memory

    return _objective(value, label, head, positive=True, init=init)


def llpauc(
    label: str = "click",
    head: str = "",
    alpha: float = 0.7,
    beta: float = 0.1,
    kappa: float = 5.0,
    regularisation: float = 0.0,
) -> Objective:
    """Lower-left partial AUC as a game: the best `alpha` of positives above the worst `beta` of negatives. Shi et al. 2024.

    a, b and s_n descend with the model, g and s_p ascend behind a reversed gradient; one of each for all lists. a and b
    stay in [0, 1] and g in [max(-a, b - 1), 1] as sigmoids of what is trained: theirs are clipped, and what a step takes out
    of its range would have no gradient back. Scores are logits. ValueError as of the loss.
    """
    settings = {"alpha": alpha, "beta": beta, "kappa": kappa, "regularisation": regularisation}
    tried(losses.llpauc, settings)
    head = head or label

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        # a near 1 and b near 0, which they are where positives and negatives are told apart.
        start = {"a": 2.0, "b": -2.0, "g": 0.0, "s_p": 0.0, "s_n": 0.0}
        return {name: jnp.float32(one) for name, one in start.items()}, ()

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> Valued:
        given = _given(outputs, batch, label, head)
        loss = losses.llpauc(**given, **settings, **_auxiliaries(params))
        return loss, _speaks(given), memory

    return _objective(value, label, head, positive=False, init=init)


sampled_softmax_settled = sl_at_k_settled = adv_infonce_settled = llpauc_settled = single_settled


def _auxiliaries(params: Tree) -> dict[str, Array]:
    """a, b, g in their ranges, s_p and s_n as they are; those that ascend behind a reversed gradient."""
    a, b = jax.nn.sigmoid(params["a"]), jax.nn.sigmoid(params["b"])
    least = jax.lax.stop_gradient(jnp.maximum(-a, b - 1.0))
    g = least + (1.0 - least) * jax.nn.sigmoid(_reversed(params["g"]))
    return {"a": a, "b": b, "g": g, "s_p": _reversed(params["s_p"]), "s_n": params["s_n"]}


def _objective(
    value: Callable[..., Valued],
    label: str,
    head: str,
    positive: bool,
    init: Callable[..., tuple[Tree, Tree]] | None = None,
) -> Objective:
    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return outputs.scores[head]

    return Objective(
        value, predict, heads={head: 1}, labels=(label,), init=init, positive=positive, label=label,
        takes=("gain",), order=True, relevant=True,
    )  # fmt: skip


def _given(outputs: Outputs, batch: Batch, label: str, head: str) -> dict[str, Array]:
    return {
        "scores": outputs.scores[head],
        "labels": batch.labels[label],
        "where": batch.observed[label],
        "weights": batch.weights,
    }


def _speaks(given: dict[str, Array]) -> Array:
    """[B] bool: lists with a relevant item and another."""
    relevant = given["where"] & (given["labels"] > 0)
    return relevant.any(-1) & (given["where"] & ~relevant).any(-1)


def _threshold(scores: Array, where: Array, count: Array, k: int) -> Array:
    """[B] the score above which k items are expected, each candidate counting `count` times; the least where it is none."""
    kept = jnp.where(where, scores, -jnp.inf)
    order = jnp.argsort(-kept, axis=-1)
    above = jnp.cumsum(jnp.take_along_axis(jnp.where(where, count, 0.0), order, axis=-1), axis=-1)
    last = jnp.maximum(jnp.sum(where, axis=-1), 1) - 1
    # A little less than k: a cumulated sum of ones is exact, one of shares is not.
    place = jnp.minimum(jnp.sum(above < k - 1e-3, axis=-1), last)
    found = jnp.take_along_axis(kept, jnp.take_along_axis(order, place[..., None], axis=-1), axis=-1)[..., 0]
    return jnp.where(where.any(-1), found, 0.0)


def _reversed(one: Array) -> Array:
    """The same number with the opposite gradient: what descends on it ascends."""
    return 2.0 * jax.lax.stop_gradient(one) - one
