"""What a search may change of a config: keys with a range of numbers, or with a choice of values."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mobjrec.config import Config, dump, parse_text, plain
from mobjrec.defaults import settled
from mobjrec.errors import UserError
from mobjrec.problems import found, nearest, report
from mobjrec.resume import flat
from mobjrec.yaml_reader import file_text, read

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"\s*({NUMBER})\s*\.\.\s*({NUMBER})\s*(:log)?\s*")
FORMS = "LOW..HIGH, LOW..HIGH:log, or A|B|C"


class Range(NamedTuple):
    """Numbers from low to high, both in it; whole ones where both ends are. log: evenly in their logarithm"""

    low: float
    high: float
    log: bool = False


class Choice(NamedTuple):
    """One of at least two values, any that a config can hold."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choice]


def told(texts: Iterable[str]) -> dict[str, Range | Choice]:
    """The space of KEY=LOW..HIGH, KEY=LOW..HIGH:log and KEY=A|B|C. UserError for other texts, and a key given twice."""
    space: dict[str, Range | Choice] = {}
    for text in texts:
        key, equals, right = text.partition("=")
        if not equals or not key.strip() or not right.strip():
            raise UserError(f"--search {text}: expected KEY={FORMS}")
        if key.strip() in space:
            raise UserError(f"--search {text}: {key.strip()} is given twice; keep one")
        space[key.strip()] = _dimension(right, f"--search {text}")
    return space


def from_file(path: Path) -> dict[str, Range | Choice]:
    """The space in a YAML file, {KEY: LOW..HIGH[:log]} or {KEY: [A, B, C]}. UserError names what is wrong."""
    if not path.is_file():
        raise UserError(f"--space {path}: there is no such file")
    value, places, problems = read(file_text(path), str(path))
    if problems:
        raise report(problems, places)
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path}: found {found(value)}; expected KEY: {FORMS.replace('A|B|C', '[A, B, C]')}")
    return {
        key: _choice(one, f"{path}: {key}") if isinstance(one, list) else _dimension(str(one), f"{path}: {key}")
        for key, one in value.items()
    }


def default(config: Config) -> tuple[Config, dict[str, Range | Choice]]:
    """(the config with static weights, a space over them and the learning rate), for a settled config.

    Weights of 0.01 to 1, evenly in their logarithm, so that every proportion up to 100 to 1 may come; of their common factor
    `weight_scale: unit` makes nothing. The learning rate is from a tenth to ten times the config's. Where there is one
    objective, or a preference is drawn, the weighting stays as it is.
    """
    space: dict[str, Range | Choice] = {}
    if len(config.objectives) > 1 and config.preference is None:
        weights = dict.fromkeys(config.objectives, 1.0)
        config = changed(config, {"weighting": {"use": "static", "weights": weights}})
        space = {f"weighting.weights.{name}": Range(0.01, 1.0, log=True) for name in weights}
    rate = config.optimizer.settings.get("learning_rate")
    if isinstance(rate, int | float) and rate > 0:
        space["optimizer.learning_rate"] = Range(*(float(f"{rate * factor:.6g}") for factor in (0.1, 10)), log=True)
    if not space:
        raise UserError("this config has nothing that is searched by default; say what by --search KEY=LOW..HIGH")
    return config, space


def changed(config: Config, values: Mapping[str, Any]) -> Config:
    """The settled config with these values in the place of its own, by dotted key. UserError where one does not fit."""
    overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return settled(parse_text(dump(config), "the config", overrides))


def check(config: Config, space: Space) -> None:
    """UserError for a key that a settled config has not, and for a range or choice with an end that the config refuses."""
    known = flat(plain(config))
    for key, dimension in space.items():
        if key not in known:
            raise UserError(f"{key} is not a key of this config with a value{nearest(key, sorted(known))}")
        for value in ends(dimension):
            try:
                changed(config, {key: value})
            except UserError as error:
                raise UserError(f"the space of {key} holds {json.dumps(value)}, which does not fit: {error}") from None


def ends(dimension: Range | Choice) -> tuple[Any, ...]:
    """A range's two ends, all values of a choice."""
    return dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)


def written(space: Space) -> dict[str, Any]:
    """The space as `from_file` reads it."""
    return {
        key: list(one.values) if isinstance(one, Choice) else f"{one.low}..{one.high}{':log' if one.log else ''}"
        for key, one in space.items()
    }


def _dimension(text: str, where: str) -> Range | Choice:
    match = RANGE.fullmatch(text)
    if match is None and "|" in text:
        return _choice([read(part, where).value for part in text.split("|")], where)
    if match is None:
        raise UserError(f"{where}: found {text.strip()!r}; expected {FORMS}")
    number: Callable[[str], float] = int if re.fullmatch(r"[-+]?\d+", match[1] + match[2].lstrip("+-")) else float
    low, high, log = number(match[1]), number(match[2]), bool(match[3])
    if not low < high:
        raise UserError(f"{where}: {match[1]} is not below {match[2]}")
    if log and low <= 0:
        raise UserError(f"{where}: a range in the logarithm begins above 0, not at {match[1]}")
    return Range(low, high, log)


def _choice(values: Sequence[Any], where: str) -> Choice:
    distinct = {json.dumps(value) for value in values}
    if len(distinct) < 2 or len(distinct) < len(values):
        raise UserError(f"{where}: a choice needs at least two values, each once")
    return Choice(tuple(values))
