"""A config that is right in all that can be known without data, its defaults that follow from other keys written out.

So a dump holds what is in force. What is wrong is told in one report: keys, settings, and what factories refuse.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mobjrec.checks import Checked, check
from mobjrec.config import Config, Draft, plain, read_mapping, read_text, validated
from mobjrec.paths import located
from mobjrec.problems import report
from mobjrec.resolve import written_in
from mobjrec.types import Model
from mobjrec.yaml_reader import file_text


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The settled config in a YAML file with `a.b=value` overrides on top. UserError lists all that is wrong."""
    return _settled(read_text(file_text(Path(path)), str(path), overrides))


def parse(mapping: Mapping[str, Any]) -> Config:
    """The settled config that a mapping of plain data says. UserError lists all that is wrong."""
    return _settled(read_mapping(mapping))


def settled(config: Config) -> Config:
    """The complete config with what its null and "" mean in place of them; settled(settled(c)) = settled(c).

    lists.history.of: the first label of the first objective   lists.eval_window: the window
    evaluate.candidates: those of training   gram_at: see `compared_at`; it stays null where the weighting reads no Gram
    matrix, or the weights that the model needs are not here; so does `parallel.devices`, which is the machine's
    No data are read. UserError lists what is wrong in any block.
    """
    return config if config._settled else _settled(Draft(plain(config), config.places, [], config))


def compared_at(model: Model) -> str:
    """Where gradients are compared: at the embeddings where a text encoder trains, else at the parameters."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    trains = any(jax.tree.leaves(model.trainable(shapes).get("encoder", {})))
    return "embeddings" if trains else "parameters"


def _settled(draft: Draft) -> Config:
    problems = list(draft.problems)
    found = check(located(draft.data, draft.places), problems)
    if problems or draft.config is None:
        raise report(problems, draft.places)
    config = validated(_in_force(draft.config, found), draft.places)
    config._settled = True
    return config


def _in_force(config: Config, found: Checked) -> dict[str, Any]:
    """The config's plain data with every default in place."""
    data = written_in(plain(config), found.blocks)
    first = next(iter(found.objectives.values())).labels
    data["lists"]["history"]["of"] = config.lists.history.of or (first[0] if first else "")
    if config.lists.eval_window is None:
        data["lists"]["eval_window"] = config.lists.window
    data["evaluate"]["candidates"] = data["evaluate"]["candidates"] or data["candidates"]
    if config.gram_at is None and found.weighting.needs_gram and found.model is not None:
        data["gram_at"] = compared_at(found.model)
    return data
