"""Everything that is wrong with a config and can be known without data, in one go: what factories refuse, what clashes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mobjrec import mesh, preferences, state
from mobjrec.config import BatchOf, Evaluate, plain
from mobjrec.data.texts import check_template, divide
from mobjrec.errors import closest
from mobjrec.lookup import THEMSELVES, lookup
from mobjrec.metrics import named
from mobjrec.metrics.keys import keyed
from mobjrec.problems import KeyPath, Problem, nearest
from mobjrec.resolve import Bound, bounds
from mobjrec.trial import Trial, complaints, touched, tried
from mobjrec.types import Column, Input, LabelSpec, Model, Objective, SideSpec, Spec, Weighting

# What a block of a seam makes.
MADE = {"objective": Objective, "weighting": Weighting, "model": Model}
# Settings of the smallest nested pieces, which stand in for wrong ones and for weights that are not here.
SMALLEST = {"Encoder": ("bert", {"layers": 1, "width": 2, "heads": 1}), "Scorer": ("dot", {})}
# How many steps, lists and items there are where the data decides it.
SOME = 1000
NO_CONTEXT = SideSpec()


class Checked(NamedTuple):
    """What a config's blocks make, as far as nothing is wrong. model: None also where its weights are not here"""

    blocks: dict[KeyPath, Bound]
    objectives: dict[str, Objective]
    weighting: Weighting | None
    model: Model | None


def check(data: Mapping[str, Any], problems: list[Problem], context: SideSpec = NO_CONTEXT) -> Checked:
    """The blocks of a config's plain data and what they make; what is wrong goes to `problems`.

    context: columns of the events, where the data are read already
    data: may lack keys and hold wrong ones, told of in `problems` already. No data are read and nothing is compiled; a
    factory of every seam but `data` is called, and losses and the weighting's state are traced by shape.
    """
    absent: list[str] = []

    def stand_in(seam: str) -> Any:
        absent.append(seam)
        if seam in THEMSELVES:
            return lookup("Loss", "squared")
        name, settings = SMALLEST.get(seam, ("", {}))
        return lookup(seam, name)(**settings) if name else None

    blocks = bounds(data, problems, Trial(_made, stand_in, {}))
    values = {
        path: _tried(path, bound, data, problems) for path, bound in blocks.items() if path[0] not in ("data", "model")
    }
    objectives = {path[1]: one for path, one in values.items() if path[0] == "objectives" and one is not None}
    weighting = values.get(("weighting",))
    _check_weighting(weighting, objectives, data, problems)
    _check_heads(objectives, problems)
    _check_metrics(objectives, data, problems)
    _check_devices(data, problems)
    _check_views(data, problems)
    model = None
    if ("model",) in blocks:
        _check_texts(blocks[("model",)], data, problems)
        model = _model(blocks[("model",)], objectives, data, problems, context)
    _check_preference(blocks, weighting, model, data, problems)
    optimizer = values.get(("optimizer",))
    if not problems and not absent and optimizer is not None and model is not None:
        spec = _spec(blocks[("model",)], objectives, data, context)
        _check_groups(Checked(blocks, objectives, weighting, model), optimizer, spec, problems)
    return Checked(blocks, objectives, weighting, None if absent else model)


def _made(seam: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """A nested piece: the loss or metric itself, once it was traced by shape, or what the factory makes."""
    if seam not in THEMSELVES:
        found = function(**arguments)
        if seam in SMALLEST and not callable(found):
            raise ValueError(f"it makes a {type(found).__name__}; expected a function that makes a module")
        return found
    scores, where = jax.ShapeDtypeStruct((1, 128), jnp.float32), jax.ShapeDtypeStruct((1, 128), jnp.bool_)
    jax.eval_shape(lambda s, y, w: function(s, y, where=w, **arguments), scores, scores, where)
    return functools.partial(function, **arguments) if arguments else function


def _tried(path: KeyPath, bound: Bound, data: Mapping[str, Any], problems: list[Problem]) -> Any:
    """What a block makes without data; None where it refuses, or where a setting of its cannot be known here."""
    if not bound.known:
        return None
    steps = data.get("steps")
    given = {"steps": steps if isinstance(steps, int) and steps > 0 else SOME} if path == ("optimizer",) else {}
    return _of_kind(
        {"objectives": "objective"}.get(str(path[0]), str(path[0])),
        lambda arguments: bound.function(**given, **arguments),
        bound,
        path,
        problems,
        functools.reduce(lambda at, key: at[key], path, data),
    )


def _of_kind(
    seam: str, make: Callable[[dict[str, Any]], Any], bound: Bound, path: KeyPath, problems: list[Problem], given: Any
) -> Any:
    """What `make` makes, None and a problem where it refuses or makes what does not belong there."""
    settings = plain(bound.block.settings) | dict(given)
    found = tried(make, bound.arguments, bound.optional, settings, path, problems)
    if found is None or isinstance(found, MADE.get(seam, object)):
        return found
    kind = MADE[seam].__name__
    problems.append(Problem((*path, "use"), f"{bound.block.use} makes a {type(found).__name__}; expected a {kind}"))
    return None


def _check_weighting(
    weighting: Weighting | None, objectives: dict[str, Objective], data: Mapping[str, Any], problems: list[Problem]
) -> None:
    """A weighting that does not fit the objectives' number or their signs."""
    if weighting is None or not _named(data):
        return
    path, settings = ("weighting",), data["weighting"]
    try:
        jax.eval_shape(lambda: weighting.init(len(_named(data))))
    except ValueError as error:
        problems += [one for one in complaints(error, settings, path) if not touched(one.path, problems)]
    below = [name for name, one in objectives.items() if not one.positive]
    if weighting.needs_positive and below:
        text = f"{settings['use']} needs losses above 0, but {', '.join(below)} may go below; take another weighting"
        problems.append(Problem((*path, "use"), text))


def _check_preference(
    blocks: Mapping[KeyPath, Bound],
    weighting: Weighting | None,
    model: Model | None,
    data: Mapping[str, Any],
    problems: list[Problem],
) -> None:
    """A preference that is drawn and not read, or read and not drawn: by the model, whose weighting must then follow it."""
    wrong = any(touched((key,), problems) for key in ("preference", "weighting", "model"))
    if weighting is None or model is None or wrong or not _named(data):
        return
    drawn, reads = ("preference",) in blocks, preferences.reads(weighting, len(_named(data)))
    if model.conditioned and not drawn:
        text = "the scorer reads a preference and none is drawn; give {use: dirichlet}, or take another scorer"
    elif drawn and not reads:
        why = "so the scorer learns nothing from it" if model.conditioned else "and nor does the scorer"
        text = f"{data['weighting']['use']} reads no preference of a step, {why}; take weighting: {{use: preferred}}"
    else:
        return
    problems.append(Problem(("preference",), text))


def _check_groups(found: Checked, optimizer: Any, spec: Spec, problems: list[Problem]) -> None:
    """Patterns of `groups`, the only setting that names parameters, that none has."""
    block = found.blocks[("optimizer",)]
    if not block.arguments.get("groups"):
        return
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        params = dict(jax.eval_shape(found.model.init, key))
        own = {name: one.init for name, one in found.objectives.items() if one.init}
        params["objectives"] = {
            name: jax.eval_shape(lambda key, init=init: init(key, spec), key)[0] for name, init in own.items()
        }
    except (ValueError, KeyError):
        # One of the user's own may need what the data alone can tell.
        return
    try:
        jax.eval_shape(optimizer.init, state.divide(params, found.model.trainable(params))[0])
    except ValueError as error:
        problems += complaints(error, plain(block.block.settings), ("optimizer",))


def heads_of(objectives: Mapping[str, Objective]) -> dict[str, int]:
    """All objectives' heads."""
    return {head: width for one in objectives.values() for head, width in one.heads.items()}


def _check_heads(objectives: dict[str, Objective], problems: list[Problem]) -> None:
    """Heads that two objectives want of different widths, and those that nothing with a label teaches."""
    heads: dict[str, int] = {}
    taught = {head for objective in objectives.values() if objective.label for head in objective.heads}
    for name, objective in objectives.items():
        for head, width in objective.heads.items():
            if heads.setdefault(head, width) != width:
                text = f"head {head} is {width} wide here and {heads[head]} elsewhere; give one of them another head"
                problems.append(Problem(("objectives", name), text))
            elif not objective.label and head not in taught and closest(head, taught):
                # One of its own may teach a head without any label; a near miss of a taught one is a slip of the pen.
                text = f"head {head} is of no objective with a label{nearest(head, taught)}"
                problems.append(Problem(("objectives", name), text))


def _check_metrics(objectives: dict[str, Objective], data: Mapping[str, Any], problems: list[Problem]) -> None:
    """Metrics that are none, and a `select` that no evaluation will write."""
    told = data.get("evaluate")
    told = told if isinstance(told, Mapping) else {}
    metrics = told.get("metrics", Evaluate().metrics)
    if not isinstance(metrics, list | tuple) or touched(("evaluate", "metrics"), problems):
        return
    for place, name in enumerate(metrics):
        try:
            named(name)
        except ValueError as error:
            problems.append(Problem(("evaluate", "metrics", place), str(error)))
    if not metrics:
        text = "found a list of 0; expected at least one metric, such as ndcg@10"
        problems.append(Problem(("evaluate", "metrics"), text))
    _check_choice(told, problems)
    select, floors = told.get("select"), told.get("floors")
    wanted = [("evaluate", "select")] * (isinstance(select, str) and bool(select))
    wanted += [("evaluate", "floors", key) for key in floors or ()] if isinstance(floors, Mapping) else []
    known = selectable(objectives, metrics) if objectives.keys() == _named(data).keys() else None
    for path in wanted:
        key = select if path[-1] == "select" else path[-1]
        if known is not None and key not in known:
            problems.append(Problem(path, f"{key} is not measured{nearest(key, known, what='metrics')}"))


def _check_choice(told: Mapping[str, Any], problems: list[Problem]) -> None:
    """Floors and a patience that nothing is chosen or measured by."""
    for key in ("floors", "patience"):
        if told.get(key) and not told.get("select"):
            problems.append(
                Problem(("evaluate", key), "nothing is chosen; name the best step's metric by evaluate.select")
            )
    if told.get("patience") and told.get("every") is None:
        text = "nothing is measured while training; say how often by evaluate.every, such as {epochs: 1}"
        problems.append(Problem(("evaluate", "patience"), text))


def selectable(objectives: Mapping[str, Objective], metrics: Sequence[str]) -> list[str]:
    """The keys under which an evaluation writes these metrics, that `evaluate.select` may name."""
    orders = {name: objective.label for name, objective in objectives.items() if objective.label}
    return [
        keyed(name, label, metric)
        for name in [*orders, "utility"]
        for label in dict.fromkeys(orders.values())
        for metric in metrics
    ]


def _check_devices(data: Mapping[str, Any], problems: list[Problem]) -> None:
    """Lists of a batch that the devices of the config cannot share alike; a config that names none waits for the machine."""
    lists, devices = (
        data[block].get(key) if isinstance(data.get(block), Mapping) else None
        for block, key in (("batch", "lists"), ("parallel", "devices"))
    )
    if type(lists) is type(devices) is int and min(lists, devices) > 0 and lists % devices:
        problems.append(Problem(("batch", "lists"), mesh.uneven(lists, devices, f"is {devices}")))


def _check_views(data: Mapping[str, Any], problems: list[Problem]) -> None:
    """A view whose library is not installed."""
    told = data.get("views")
    if isinstance(told, Mapping) and told.get("wandb") and find_spec("wandb") is None:
        problems.append(
            Problem(("views", "wandb"), "wandb is not installed; pip install 'mobjrec[wandb]', or give null")
        )


def _check_texts(model: Bound, data: Mapping[str, Any], problems: list[Problem]) -> None:
    """Templates that cannot be read, and those that no tokeniser reads."""
    for side in ("user", "item"):
        given, path = model.arguments.get(side), ("model", side)
        if not isinstance(given, Input):
            text = f"{model.block.use} has no setting {side} of type Input, by which a run knows what to read"
            problems.append(Problem(("model", "use"), text))
            continue
        for template in divide(given.text) if side == "user" else (given.text,):
            try:
                check_template(template)
            except ValueError as error:
                problems.append(Problem((*path, "text"), str(error)))
        if given.text and data.get("tokenizer") is None:
            text = "a template reads text, so say what makes tokens of it, such as {use: trained, size: 2000}"
            problems.append(Problem(("tokenizer",), text))


def _model(
    bound: Bound, objectives: dict[str, Objective], data: Mapping[str, Any], problems: list[Problem], context: SideSpec
) -> Model | None:
    """The model, built for data that it could read; None where it refuses them or fails for want of data."""
    if not all(isinstance(bound.arguments.get(side), Input) for side in ("user", "item")):
        return None
    spec = _spec(bound, objectives, data, context)
    heads = heads_of(objectives)
    # An objective that was refused has heads too, by one of the names that it is given.
    for name, block in _named(data).items():
        if name not in objectives and isinstance(block, Mapping):
            heads |= {value: 1 for key, value in block.items() if isinstance(value, str) and key not in ("use", "loss")}

    def make(arguments: dict[str, Any]) -> Model:
        return bound.function(spec=spec, heads=heads, **arguments)

    try:
        return _of_kind("model", make, bound, ("model",), problems, data["model"])
    except KeyError:
        return None


def _spec(bound: Bound, objectives: dict[str, Objective], data: Mapping[str, Any], context: SideSpec) -> Spec:
    """What the model could be told of its data."""
    user, item = bound.arguments["user"], bound.arguments["item"]
    return Spec(
        vocabulary=int(bool(user.text or item.text)),
        users=_columns(user),
        items=_columns(item),
        context=context,
        labels={label: LabelSpec() for one in objectives.values() for label in one.labels},
        lists=SOME,
        catalogue=SOME,
        history=SOME * int(user.history),
        positions=SOME,
        objectives=max(len(_named(data)), 1),
        **_rows(data),
    )


def _rows(data: Mapping[str, Any]) -> dict[str, int]:
    """The longest texts that a config gives, its defaults where it gives none or wrong ones."""
    batch = data.get("batch")
    batch = batch if isinstance(batch, Mapping) else {}
    found = {name: batch.get(name, BatchOf.model_fields[name].default) for name in ("item_row", "user_row")}
    return {
        name: row if type(row) is int and row > 2 else BatchOf.model_fields[name].default for name, row in found.items()
    }


def _named(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The objectives' blocks, {} where that key is wrong."""
    return data["objectives"] if isinstance(data.get("objectives"), Mapping) else {}


def _columns(given: Input) -> SideSpec:
    return SideSpec(bool(given.text), tuple(Column(name, 2) for name in given.ids), tuple(given.numbers))
