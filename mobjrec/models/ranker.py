"""Encoders, towers and a scorer put together: the model that ranks."""

import difflib
from collections.abc import Callable

import jax
from flax import nnx

from mobjrec.models.functional import Make, bind, blank, init
from mobjrec.models.tower import ItemTower, UserTower
from mobjrec.types import Array, Encoder, Input, Model, Scorer, SideSpec, Spec, Texts, Tree

# Which of a list's masks a key is for: the same key given to two of the model's functions draws two masks.
ITEM, USER, SCORE = 1, 2, 3


def ranker(
    spec: Spec,
    heads: dict[str, int],
    *,
    encoder: Encoder | None = None,
    user_encoder: Encoder | None = None,
    item_encoder: Encoder | None = None,
    user: Input,
    item: Input,
    scorer: Scorer,
    width: int = 64,
    layers: tuple[int, ...] = (),
    dropout: float = 0.0,
    id_dropout: float = 0.1,
) -> Model:
    """Two towers of `width` over text, ids, numbers and history, and a scorer over their vectors.

    `encoder` reads the texts of both sides with the same weights, `user_encoder` and `item_encoder` their own side's.
    `layers` are hidden layers of both towers. params: {"encoder": {"both"} or {"user", "item"} or {}, "user", "item",
    "scorer"}, and what a caller adds beside. A score's own parameters lie below "heads" in "scorer".

    ValueError for a template without an encoder and an encoder without a template, a column that the dataset has not, a
    side of which nothing is read, a history that is not given, and settings that the scorer refuses.
    """
    _check_side("user", user, spec.users)
    _check_side("item", item, spec.items)
    _check_history(spec, user, item)
    if dropout < 0 or dropout >= 1 or id_dropout < 0 or id_dropout >= 1:
        raise ValueError(f"dropout is {dropout} and id_dropout {id_dropout}; both must be at least 0 and below 1")
    encoders = _encoders(spec, user, item, encoder, user_encoder, item_encoder)
    blanks = {name: blank(make) for name, make in encoders.items()}
    read_by = {side: "both" if "both" in encoders else side for side in ("user", "item")}
    text = {side: blanks[read_by[side]].width if given.text else 0 for side, given in (("user", user), ("item", item))}

    def make_item(rngs: nnx.Rngs) -> ItemTower:
        return ItemTower(spec.items, item, text["item"], width, layers, dropout, id_dropout, rngs=rngs)

    def make_scorer(rngs: nnx.Rngs) -> nnx.Module:
        return scorer(width, heads, spec, rngs)

    sequence = getattr(blank(make_scorer), "sequence", False)

    def make_user(rngs: nnx.Rngs) -> UserTower:
        return UserTower(spec.users, user, text["user"], width, layers, dropout, id_dropout, sequence, rngs=rngs)

    parts = {"user": make_user, "item": make_item, "scorer": make_scorer}
    user_tower, item_tower, scored = (bind(parts[name]) for name in ("user", "item", "scorer"))
    frozen = {name: frozenset(getattr(module, "frozen", ())) for name, module in blanks.items()}

    def init_params(key: Array) -> Tree:
        keys = dict(zip((*encoders, *parts), jax.random.split(key, len(encoders) + len(parts)), strict=True))
        params = {name: init(make)(keys[name]) for name, make in parts.items()}
        return {"encoder": {name: init(make)(keys[name]) for name, make in encoders.items()}, **params}

    def item_vectors(params: Tree, text: Array | None, ids: Array, features: Array, keys: Array | None) -> Array:
        return item_tower(params["item"])(text, ids, features, _folded(keys, ITEM))

    def user_vectors(
        params: Tree,
        text: Array | None,
        ids: Array,
        features: Array,
        history: Array | None,
        where: Array | None,
        keys: Array | None,
    ) -> Array:
        return user_tower(params["user"])(text, ids, features, history, where, _folded(keys, USER))

    def score(
        params: Tree,
        users: Array,
        items: Array,
        context: Array,
        context_ids: Array,
        preference: Array | None,
        keys: Array | None,
    ) -> dict[str, Array]:
        module = scored(params["scorer"])
        return module(users, items, context, context_ids, preference, _folded(keys, SCORE))

    return Model(
        init=init_params,
        encode_users=_encode(encoders, read_by["user"], frozen),
        encode_items=_encode(encoders, read_by["item"], frozen),
        item=item_vectors,
        user=user_vectors,
        score=score,
        heads=dict(heads),
        trainable=lambda params: _marked(params, lambda path: not _is_frozen(path, frozen)),
        shared=lambda params: _marked(params, lambda path: not (_is_frozen(path, frozen) or _is_own(path))),
        freeze=_freeze(encoders, frozen),
    )


def _encoders(
    spec: Spec, user: Input, item: Input, both: Encoder | None, of_users: Encoder | None, of_items: Encoder | None
) -> dict[str, Make]:
    """The text encoders by their place in params["encoder"]."""
    if both is not None and (of_users is not None or of_items is not None):
        raise ValueError("give encoder for both sides or user_encoder and item_encoder for each, not both kinds")
    if both is not None:
        if not (user.text or item.text):
            raise ValueError(
                "encoder is given but neither user.text nor item.text: write a template or drop the encoder"
            )
        return {"both": _make(both, spec, max(spec.user_row, spec.item_row))}
    made = {}
    for side, given, encoder, row in (("user", user, of_users, spec.user_row), ("item", item, of_items, spec.item_row)):
        if given.text and encoder is None:
            raise ValueError(f"{side}.text is {given.text!r} but nothing reads it: give encoder or {side}_encoder")
        if encoder is not None and not given.text:
            raise ValueError(f"{side}_encoder is given but {side}.text is empty: write a template or drop the encoder")
        if encoder is not None:
            made[side] = _make(encoder, spec, row)
    return made


def _make(encoder: Encoder, spec: Spec, positions: int) -> Make:
    if spec.vocabulary < 1 or positions < 1:
        raise ValueError(
            f"an encoder is given but the dataset has a vocabulary of {spec.vocabulary} and rows of {positions} tokens"
        )
    return lambda rngs: encoder(spec.vocabulary, positions, rngs)


def _encode(encoders: dict[str, Make], name: str, frozen: dict[str, frozenset[str]]) -> Callable[..., Array]:
    """(params["encoder"], Texts, [R] keys or None) -> [R, S, D]."""
    if name not in encoders:

        def missing(params: Tree, texts: Texts, keys: Array | None) -> Array:
            raise ValueError(f"this model reads no text of the {name}: its template is empty")

        return missing
    bound = bind(encoders[name])
    constant = _all_frozen(encoders[name], frozen[name])

    def encode(params: Tree, texts: Texts, keys: Array | None) -> Array:
        if texts.vector is not None:
            return texts.vector
        # Frozen parts are constants here, so no backward pass is spent on them.
        held = {
            part: jax.lax.stop_gradient(tree) if part in frozen[name] else tree for part, tree in params[name].items()
        }
        return bound(held)(texts, None if constant else keys)

    return encode


def _freeze(encoders: dict[str, Make], frozen: dict[str, frozenset[str]]) -> Callable[[Tree, Texts], Texts] | None:
    """What fills `vector`, where one encoder reads all texts and none of it trains."""
    if len(encoders) != 1:
        return None
    (name,) = encoders
    if not _all_frozen(encoders[name], frozen[name]):
        return None
    encode = _encode(encoders, name, frozen)

    def freeze(params: Tree, texts: Texts) -> Texts:
        return Texts(tokens=None, position=None, slot=None, used=texts.used, vector=encode(params, texts, None))

    return freeze


def _all_frozen(make: Make, frozen: frozenset[str]) -> bool:
    return frozen.issuperset(jax.eval_shape(init(make), jax.random.key(0)))


def _check_side(name: str, given: Input, side: SideSpec) -> None:
    if not (given.text or given.ids or given.numbers or given.history):
        raise ValueError(f"the model reads nothing of the {name}: give {name}.text, {name}.ids or {name}.numbers")
    if bool(given.text) != side.text:
        stands = "is a template" if given.text else "is empty"
        raise ValueError(
            f"{name}.text {stands}, but the dataset was read {'with' if side.text else 'without'} text there"
        )
    for kind, names, known in (
        ("ids", given.ids, tuple(column.name for column in side.ids)),
        ("numbers", given.numbers, side.numbers),
    ):
        for column in names:
            if column not in known:
                near = difflib.get_close_matches(column, known, n=1, cutoff=0.0)
                meant = f"; the nearest is {near[0]!r}" if near else "; there are none"
                raise ValueError(f"{name}.{kind} names {column!r}, which the dataset has not{meant}")


def _check_history(spec: Spec, user: Input, item: Input) -> None:
    if item.history:
        raise ValueError("item.history is set, but only users have a history")
    if user.history and spec.history < 1:
        raise ValueError("user.history is set, but the dataset gives no history as items: set lists.history")


def _marked(params: Tree, test: Callable[[tuple[str, ...]], bool]) -> Tree:
    """`test` of every leaf's path."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: test(tuple(str(getattr(step, "key", step)) for step in path)), params
    )


def _is_frozen(path: tuple[str, ...], frozen: dict[str, frozenset[str]]) -> bool:
    return path[0] == "encoder" and path[2] in frozen.get(path[1], frozenset())


def _is_own(path: tuple[str, ...]) -> bool:
    return path[0] == "objectives" or (path[0] == "scorer" and "heads" in path[1:])


def _folded(keys: Array | None, use: int) -> Array | None:
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)
