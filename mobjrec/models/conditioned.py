"""A scorer that is told the preference, around any other one: one model for the whole front."""

import jax
import jax.numpy as jnp
from flax import nnx

from mobjrec.types import Array, Scorer, Spec


def conditioned(of: Scorer, hidden: int = 32, rank: int = 8) -> Scorer:
    """The scorer `of`, which sees user and items as the preference p makes them: one model for all preferences.

    u' = (1 + a(p)) u + b(p) + U (c(p) * V u),   v' = (1 + d(p)) v,   with a, b, c, d linear in gelu(W K p + w) [hidden].
    FiLM (Perez et al. 2018) on both sides and, on the user's, a hypernetwork of that `rank` (Navon et al. 2021, low rank as
    Hu et al. 2022); the preference as input as in COSMOS (Ruchte & Grabocka 2021). Cached item vectors stay right, as p acts
    where they are scored. b is the user's alone: of items it would be the same for all of a list. History vectors stay as
    they are. rank 0: FiLM alone.

    To be trained with a `preference` that is drawn for each step and a weighting that follows it. No preference means the
    equal one. ValueError for one objective alone, `hidden` below 1 or `rank` below 0, and whatever `of` refuses.
    """
    if hidden < 1:
        raise ValueError(f"hidden is {hidden}; it must be at least 1")
    if rank < 0:
        raise ValueError(f"rank is {rank}; it must not be negative")

    def make(width: int, heads: dict[str, int], spec: Spec, rngs: nnx.Rngs) -> Conditioned:
        if spec.objectives < 2:
            raise ValueError("there is one objective, so no preference among several; take what `of` names alone")
        inner = of(width, heads, spec, rngs)
        return Conditioned(width, spec.objectives, inner, hidden, rank, rngs=rngs)

    return make


class Conditioned(nnx.Module):
    """users [B, S, D], items [B or 1, L, D], context, context_ids, preference [K] that sums to 1 or None -> scores."""

    conditioned = True

    def __init__(self, width: int, objectives: int, inner: nnx.Module, hidden: int, rank: int, *, rngs: nnx.Rngs):
        self.objectives, self.rank = objectives, rank
        self.sequence = getattr(inner, "sequence", False)
        # Small, not 0: from 0 on the layers below would not move in the first step, and it begins near `of` all the same.
        small = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
        self.inner = inner
        self.wish = nnx.Linear(objectives, hidden, rngs=rngs)
        self.film = nnx.Linear(hidden, 3 * width, kernel_init=small, rngs=rngs)
        if rank:
            self.down = nnx.Linear(width, rank, use_bias=False, rngs=rngs)
            self.core = nnx.Linear(hidden, rank, rngs=rngs)
            self.up = nnx.Linear(rank, width, use_bias=False, kernel_init=small, rngs=rngs)

    def __call__(
        self,
        users: Array,
        items: Array,
        context: Array,
        context_ids: Array,
        preference: Array | None,
        keys: Array | None,
    ) -> dict[str, Array]:
        equal = jnp.full(self.objectives, 1.0 / self.objectives)
        # Times K: numbers near 1, however many objectives there are.
        wish = jax.nn.gelu(self.wish(self.objectives * (equal if preference is None else preference)))
        of_user, shift, of_items = jnp.split(self.film(wish), 3)
        own = users[:, :1]
        told = own * (1.0 + of_user) + shift
        if self.rank:
            told = told + self.up(self.core(wish) * self.down(own))
        users = jnp.concatenate([told, users[:, 1:]], axis=1)
        return self.inner(users, items * (1.0 + of_items), context, context_ids, preference, keys)
