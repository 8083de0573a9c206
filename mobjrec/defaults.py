"""Defaults that follow from the rest of a config, written out: a dump holds what is in force."""

import jax

from mobjrec.config import Config, plain, validated
from mobjrec.errors import UserError
from mobjrec.resolve import bind, complete
from mobjrec.types import Column, Input, LabelSpec, Model, Objective, SideSpec, Spec


def settled(config: Config) -> Config:
    """The complete config with what its null and "" mean in place of them; settled(settled(c)) = settled(c).

    lists.history.of: the first label of the first objective   lists.eval_window: the window
    evaluate.candidates: those of training   gram_at: see `compared_at`; it stays null where the weighting reads no Gram
    matrix, or the model cannot be built without data; so does `parallel.devices`, which is the machine's
    No data are read. UserError lists what is wrong in any block.
    """
    config = complete(config)
    names = tuple(config.objectives)
    objectives = {
        name: bind("objective", block, where=f"objectives.{name}", objectives=names).call()
        for name, block in config.objectives.items()
    }
    data = plain(config)
    first = next(iter(objectives.values())).labels
    data["lists"]["history"]["of"] = config.lists.history.of or (first[0] if first else "")
    if config.lists.eval_window is None:
        data["lists"]["eval_window"] = config.lists.window
    data["evaluate"]["candidates"] = plain(config.evaluate.candidates or config.candidates)
    weighting = bind("weighting", config.weighting, where="weighting", objectives=names).call()
    if config.gram_at is None and weighting.needs_gram:
        data["gram_at"] = _compared_at(config, objectives)
    return validated(data, config.places)


def compared_at(model: Model) -> str:
    """Where gradients are compared: at the embeddings where a text encoder trains, else at the parameters."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    trains = any(jax.tree.leaves(model.trainable(shapes).get("encoder", {})))
    return "embeddings" if trains else "parameters"


def _compared_at(config: Config, objectives: dict[str, Objective]) -> str | None:
    """The same of a config's model, built for the smallest data that it could read; None where that cannot be."""
    heads = {head: width for one in objectives.values() for head, width in one.heads.items()}
    try:
        block = bind("model", config.model, where="model", objectives=tuple(objectives))
        inputs = block.arguments["user"], block.arguments["item"]
        labels = {label: LabelSpec() for one in objectives.values() for label in one.labels}
        spec = Spec(
            vocabulary=int(any(one.text for one in inputs)),
            users=_columns(inputs[0]),
            items=_columns(inputs[1]),
            context=SideSpec(),
            labels=labels,
            lists=1,
            catalogue=1,
            history=int(inputs[0].history),
            item_row=config.batch.item_row,
            user_row=config.batch.user_row,
        )
        return compared_at(block.call(spec, heads))
    # What is wrong here may be so for want of data: whoever reads them says it, with all that is known then.
    except (UserError, ValueError, KeyError):
        return None


def _columns(given: Input) -> SideSpec:
    return SideSpec(bool(given.text), tuple(Column(name, 2) for name in given.ids), tuple(given.numbers))
