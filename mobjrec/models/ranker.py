"""Encoders, towers and a scorer put together: the model that ranks."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from mobjrec.errors import meant
from mobjrec.models.dropout import check_rate
from mobjrec.models.functional import Make, blank, init, parts_of, rebound
from mobjrec.models.tower import ItemTower, UserTower, check_layers
from mobjrec.types import Array, Encoder, Input, Model, Scorer, SideSpec, Spec, Texts, Tree


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
    _check_sizes(width, layers, dropout, id_dropout)
    faults = [*_side_faults("user", user, spec.users), *_side_faults("item", item, spec.items)]
    faults += _history_faults(spec, user, item)

    def make_scorer(rngs: nnx.Rngs) -> nnx.Module:
        return scorer(width, heads, spec, rngs)

    # All that is wrong at once: a reader of the message mends it in one go.
    try:
        scored = blank(make_scorer)
    except ValueError as error:
        faults.append(str(error))
    try:
        encoders = _encoders(spec, user, item, encoder, user_encoder, item_encoder)
    except ValueError as error:
        faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    blanks = {name: blank(make) for name, make in encoders.items()}
    frozen = {name: frozenset(getattr(module, "frozen", ())) for name, module in blanks.items()}
    of_users, of_items = ("both", "both") if "both" in encoders else ("user", "item")

    def make_user(rngs: nnx.Rngs) -> UserTower:
        text = blanks[of_users].width if user.text else 0
        sequence = getattr(scored, "sequence", False)
        return UserTower(spec.users, user, text, width, layers, dropout, id_dropout, sequence, rngs=rngs)

    def make_item(rngs: nnx.Rngs) -> ItemTower:
        text = blanks[of_items].width if item.text else 0
        return ItemTower(spec.items, item, text, width, layers, dropout, id_dropout, rngs=rngs)

    return Model(
        init=_init(encoders, {"user": make_user, "item": make_item, "scorer": make_scorer}),
        encode_users=_encode(blanks, of_users, frozen),
        encode_items=_encode(blanks, of_items, frozen),
        item=_part(blank(make_item), "item"),
        user=_part(blank(make_user), "user"),
        score=_part(scored, "scorer"),
        heads=dict(heads),
        trainable=lambda params: _marked(params, lambda path: not _is_frozen(path, frozen)),
        shared=lambda params: _marked(params, lambda path: not (_is_frozen(path, frozen) or _is_own(path))),
        freeze=_freeze(blanks, frozen),
        conditioned=getattr(scored, "conditioned", False),
    )


def _init(encoders: dict[str, Make], parts: dict[str, Make]) -> Callable[[Array], Tree]:
    def init_params(key: Array) -> Tree:
        of_encoders, of_parts = jax.random.split(key)
        return {"encoder": _drawn(encoders, of_encoders), **_drawn(parts, of_parts)}

    return init_params


def _drawn(makes: dict[str, Make], key: Array) -> Tree:
    return {name: init(make)(jax.random.fold_in(key, number)) for number, (name, make) in enumerate(makes.items())}


def _part(module: nnx.Module, name: str) -> Callable[..., Any]:
    """The module's call as a function of all parameters, of which it reads those at `name`, and its inputs."""
    bound = rebound(module)
    return lambda params, *inputs: bound(params[name])(*inputs)


def _encoders(
    spec: Spec, user: Input, item: Input, both: Encoder | None, of_users: Encoder | None, of_items: Encoder | None
) -> dict[str, Make]:
    """The text encoders by their place in params["encoder"]."""
    for side, own in (("user", of_users), ("item", of_items)):
        if both is not None and own is not None:
            raise ValueError(f"{side}_encoder is given beside encoder, which reads both sides; drop one of the two")
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


def _encode(blanks: dict[str, nnx.Module], name: str, frozen: dict[str, frozenset[str]]) -> Callable[..., Array]:
    """(params["encoder"], Texts, [R] keys or None) -> [R, S, D]."""
    if name not in blanks:

        def missing(params: Tree, texts: Texts, keys: Array | None) -> Array:
            raise ValueError(f"this model reads no text of the {name}: its template is empty")

        return missing
    bound = rebound(blanks[name])
    constant = _all_frozen(blanks[name], frozen[name])

    def encode(params: Tree, texts: Texts, keys: Array | None) -> Array:
        if texts.vector is not None:
            return texts.vector
        return bound(params[name])(texts, None if constant else keys)

    return encode


def _freeze(blanks: dict[str, nnx.Module], frozen: dict[str, frozenset[str]]) -> Callable[[Tree, Texts], Texts] | None:
    """What fills `vector` where an encoder does not train at all, and `hidden` where its lower layers do not.

    Of two encoders, params holds the one that is meant.
    """
    whole = {name: _all_frozen(module, frozen[name]) for name, module in blanks.items()}
    partly = {name for name, module in blanks.items() if frozen[name] and hasattr(module, "frozen_part")}
    if not (partly or any(whole.values())):
        return None
    bound = {name: rebound(module) for name, module in blanks.items()}

    def freeze(params: Tree, texts: Texts) -> Texts:
        if len(params) != 1:
            raise ValueError(f"freeze got the encoders {', '.join(params)}; give it one, as {{name: its parameters}}")
        (name,) = params
        if whole[name]:
            found = bound[name](params[name])(texts, None)
            return Texts(tokens=None, position=None, slot=None, used=texts.used, vector=found)
        if name in partly:
            return texts._replace(hidden=bound[name](params[name]).frozen_part(texts, None))
        return texts

    return freeze


def _all_frozen(module: nnx.Module, frozen: frozenset[str]) -> bool:
    return frozen >= parts_of(module)


def _check_sizes(width: int, layers: tuple[int, ...], dropout: float, id_dropout: float) -> None:
    check_rate("dropout", dropout)
    check_rate("id_dropout", id_dropout)
    check_layers(layers)
    if width < 1:
        raise ValueError(f"width is {width}; it must be at least 1")


def _side_faults(name: str, given: Input, side: SideSpec) -> list[str]:
    if not (given.text or given.ids or given.numbers or given.history):
        return [f"{name} has nothing to read: give {name}.text, {name}.ids or {name}.numbers"]
    faults = []
    if bool(given.text) != side.text:
        stands = "is a template" if given.text else "is empty"
        faults += [f"{name}.text {stands}, but the dataset was read {'with' if side.text else 'without'} text there"]
    for kind, names, known in (
        ("ids", given.ids, tuple(column.name for column in side.ids)),
        ("numbers", given.numbers, side.numbers),
    ):
        faults += [f"{name}.{kind} names {column!r} twice" for column in sorted(set(names)) if names.count(column) > 1]
        for column in names:
            if column not in known:
                there = ", ".join(known) or "none"
                faults.append(
                    f"{name}.{kind} names {column!r}, which the dataset has not; there are {there}{meant(column, known)}"
                )
    return faults


def _history_faults(spec: Spec, user: Input, item: Input) -> list[str]:
    faults = ["item.history is set, but only users have a history"] if item.history else []
    if user.history and spec.history < 1:
        faults.append("user.history is set, but the dataset gives no history as items: set lists.history")
    return faults


def _marked(params: Tree, test: Callable[[tuple[str, ...]], bool]) -> Tree:
    """`test` of every leaf's path."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: test(tuple(str(getattr(step, "key", step)) for step in path)), params
    )


def _is_frozen(path: tuple[str, ...], frozen: dict[str, frozenset[str]]) -> bool:
    return path[0] == "encoder" and path[2] in frozen.get(path[1], frozenset())


def _is_own(path: tuple[str, ...]) -> bool:
    return path[0] == "objectives" or (path[0] == "scorer" and "heads" in path[1:])
