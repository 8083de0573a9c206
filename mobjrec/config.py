"""The experiment as one frozen, typed value: read from YAML with dotted overrides, dumped complete and exact.

A block `{use: NAME, ...}` keeps its settings as plain data; `resolve` checks them against the function they are for.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic import ValidationInfo as Info
from pydantic_core import PydanticCustomError

from mobjrec.errors import UserError
from mobjrec.overrides import EXCLUSIVE, override
from mobjrec.problems import KeyPath, Problem, found, misfits, report
from mobjrec.yaml_reader import MAX_DEPTH, file_text, read
from mobjrec.yaml_writer import written

MAX_KEY = 200
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def frozen(value: Any) -> Any:
    """Plain data that cannot be changed: read-only mappings and tuples."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(entry) for key, entry in value.items()})
    if isinstance(value, list | tuple):
        return tuple(frozen(entry) for entry in value)
    return value


class Block(BaseModel):
    """A function chosen by name and its settings: `{use: adamw, learning_rate: 3e-4}`.

    use: a short name of the seam's room, or "module:name"   settings: the other keys, plain data, read-only
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)
    __pydantic_extra__: dict[str, Annotated[Any, AfterValidator(frozen)]] = Field(init=False)
    use: str = Field(min_length=1)

    @property
    def settings(self) -> Mapping[str, Any]:
        return MappingProxyType(self.__pydantic_extra__ or {})

    def __deepcopy__(self, memo: Any = None) -> "Block":
        return self

    def __reduce__(self) -> Any:
        return Block.model_validate, (plain(self),)


Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
LabelName = Annotated[str, Field(pattern=r"^[\w][\w-]*$")]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Frozen = AfterValidator(MappingProxyType)
Rates = Annotated[dict[str, Positive], Frozen]


def _one(*others: str) -> Any:
    """The check that exactly one of `others` and `steps` is given; silent where another one is wrong already."""

    def check(cls: type, value: Any, info: Info) -> Any:
        if all(name in info.data for name in others):
            given = [name for name in others if info.data[name] is not None] + ["steps"] * (value is not None)
            if len(given) != 1:
                names, found = " or ".join([*others, "steps"]), " and ".join(given) or "none"
                text = f"found {found}; expected exactly one of {names} (null unsets a key)"
                raise PydanticCustomError("one_of", text, {"none_of": [] if given else [*others, "steps"]})
        return value

    return field_validator("steps")(classmethod(check))


class Every(BaseModel):
    """How often: each so many epochs, or steps."""

    model_config = STRICT
    epochs: Positive | None = None
    steps: Count | None = Field(default=None, validate_default=True)
    _check = _one("epochs")


class Pace(BaseModel):
    """How often: each so many minutes, epochs, or steps."""

    model_config = STRICT
    minutes: Positive | None = None
    epochs: Positive | None = None
    steps: Count | None = Field(default=None, validate_default=True)
    _check = _one("minutes", "epochs")


class History(BaseModel):
    """A user's history: the `last` events with a positive label `of`; "" is the first label of the first objective."""

    model_config = STRICT
    of: str = ""
    last: int = Field(default=50, ge=0)


class ListsOf(BaseModel):
    """How events become lists. window: events a list where none is logged, 0 = all of a user's events in a split

    eval_window: the same for valid and test, None = as `window`
    strict: whether a leak between the splits (data/leaks.py) is an error; it is reported in any case
    """

    model_config = STRICT
    split: Block
    history: History = History()
    window: int = Field(default=1, ge=0)
    eval_window: int | None = Field(default=None, ge=0)
    strict: bool = False


class BatchOf(BaseModel):
    """Sizes of a global batch: lists, and the longest item and user text in tokens.

    chunk_rows: packed rows encoded at once on a device, None = all
    """

    model_config = STRICT
    lists: Count
    # [CLS], [SEP] and a token between them.
    item_row: int = Field(default=64, ge=3)
    user_row: int = Field(default=256, ge=3)
    chunk_rows: Count | None = None


class Evaluate(BaseModel):
    """When and how a split is measured.

    every: None = at the end only   candidates: None = those of training   select: the metric that picks the kept step,
    "" = none   floors: {metric: the lowest value that a kept step may have}   patience: training stops after so many
    evaluations without a new best, None = never   lists: how many of a split's are measured while training, None = all
    """

    model_config = STRICT
    every: Every | None = None
    candidates: Block | None = None
    metrics: tuple[str, ...] = ("ndcg@10", "auc")
    select: str = ""
    floors: Annotated[dict[str, float], Frozen] = Field(default={}, validate_default=True)
    patience: Count | None = None
    lists: Count | None = None


class Save(BaseModel):
    """When a checkpoint is written, how many are kept, and how long a signal's save waits for an evaluation, in seconds."""

    model_config = STRICT
    every: Pace = Pace(minutes=10.0)
    keep: Count = 2
    grace: float = Field(default=30.0, ge=0)


class Parallel(BaseModel):
    """How the step is mapped over devices. devices: None = all that there are"""

    model_config = STRICT
    map: Literal["shard_map", "pmap"] = "shard_map"
    devices: Count | None = None


class Views(BaseModel):
    """What the record is shown in beside TensorBoard. wandb: a project of Weights & Biases, None = not there"""

    model_config = STRICT
    wandb: Annotated[str, Field(min_length=1)] | None = None


class Config(BaseModel):
    """A whole experiment. Equal configs dump the same; `places` ("file:line" by key path) is no part of it."""

    model_config = STRICT
    # jax keeps 32 bits of a seed and numpy all: two seeds must never be one for half of a run.
    seed: int = Field(default=0, ge=0, lt=2**32)
    epochs: Positive | None = None
    steps: Count | None = Field(default=None, validate_default=True)
    data: Block
    labels: Annotated[dict[LabelName, Block], Frozen] = Field(default={}, validate_default=True)
    rates: Annotated[dict[str, Rates], Frozen] = Field(default={}, validate_default=True)
    tokenizer: Block | None = None
    lists: ListsOf
    candidates: Block
    batch: BatchOf
    model: Block
    objectives: Annotated[dict[Name, Block], Field(min_length=1), Frozen]
    weighting: Block
    weight_scale: Literal["unit", "paper"] = "unit"
    preference: Block | None = None
    gram_at: Literal["embeddings", "parameters"] | None = None
    optimizer: Block
    evaluate: Evaluate = Field(default_factory=Evaluate)  # a read-only mapping cannot be copied
    save: Save = Save()
    parallel: Parallel = Parallel()
    views: Views = Views()
    non_finite: Literal["raise", "skip"] = "raise"
    non_finite_limit: Count = 10
    unsolved: Literal["count", "raise"] = "count"
    _places: dict[KeyPath, str] = PrivateAttr(default_factory=dict)
    # Whether all was checked and every default is written in, see defaults.py: once for a run is enough.
    _settled: bool = PrivateAttr(default=False)
    _check = _one("epochs")

    @property
    def places(self) -> Mapping[KeyPath, str]:
        return MappingProxyType(self._places)

    def __eq__(self, other: object) -> bool:
        # By text: the order of objectives and of path patterns counts, and 1 is not true.
        return isinstance(other, Config) and dump(self) == dump(other)

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, memo: Any = None) -> "Config":
        return self

    def __reduce__(self) -> Any:
        return validated, (plain(self), dict(self._places))


class Draft(NamedTuple):
    """What is to be a config, before all of it is known to be right.

    data: plain, as JSON has it   places: "file:line" by key path   problems: of the config's own keys, blocks not looked at
    config: None where there are problems
    """

    data: dict[str, Any]
    places: Mapping[KeyPath, str]
    problems: list[Problem]
    config: Config | None


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML file with `a.b=value` overrides on top. UserError lists all that is wrong, with its line."""
    return _whole(read_text(file_text(Path(path)), str(path), overrides))


def parse_text(text: str, source: str = "config", overrides: Sequence[str] = ()) -> Config:
    """The config in a YAML text, which messages call `source`. UserError lists all that is wrong, with its line."""
    return _whole(read_text(text, source, overrides))


def read_text(text: str, source: str = "config", overrides: Sequence[str] = ()) -> Draft:
    """The same as a draft. UserError for what is not keys and values at all."""
    value, places, problems = read(text, source)
    if value is None and not problems:
        problems.append(Problem((), "the file is empty; expected the keys of a config", source))
    elif value is not None and not isinstance(value, dict):
        problems.append(Problem((), f"found {found(value)}; expected the keys of a config", source))
    readable = value if isinstance(value, dict) else {}
    override(readable, overrides, roots=tuple(Config.model_fields), places=places, problems=problems)
    if value is not readable:
        raise report(problems, places)
    return drafted(readable, places, problems)


def parse(mapping: Mapping[str, Any]) -> Config:
    """The config that a mapping of plain data says; paths and tuples are fine. UserError lists all that is wrong."""
    return _whole(read_mapping(mapping))


def read_mapping(mapping: Mapping[str, Any]) -> Draft:
    """The draft that a mapping of plain data says. UserError for what is no mapping."""
    if not isinstance(mapping, Mapping):
        raise UserError(f"the config is {found(mapping)}; expected a mapping")
    return drafted(mapping, {})


def dump(config: Config) -> str:
    """Complete YAML: every key, floats by repr, so that reading it gives an equal config."""
    return written(plain(config))


def plain(value: Any) -> Any:
    """A config, or a part of it, as dicts, lists and scalars. Of keys that exclude each other only the given one."""
    if isinstance(value, Block):
        return {"use": value.use} | plain(value.settings)
    if isinstance(value, BaseModel):
        fields = {name: plain(getattr(value, name)) for name in type(value).model_fields}
        return {name: entry for name, entry in fields.items() if entry is not None or name not in EXCLUSIVE}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def validated(mapping: Mapping[str, Any], places: Mapping[KeyPath, str]) -> Config:
    """The config of plain data. UserError with all that is wrong."""
    return _whole(drafted(mapping, places))


def drafted(mapping: Mapping[str, Any], places: Mapping[KeyPath, str], problems: Iterable[Problem] = ()) -> Draft:
    """The draft of plain data; its problems are `problems` and all that is wrong besides."""
    problems = list(problems)
    data = _checked(mapping, (), problems)
    config = None
    try:
        # JSON mode: strict still takes a list for a tuple there, and nothing else that is not what it should be.
        config = Config.model_validate_json(json.dumps(data))
    except ValidationError as error:
        known = {problem.path for problem in problems}
        problems += [one for one in misfits(error.errors(include_url=False), Config) if one.path not in known]
    if config is not None:
        config._places.update(places)
    return Draft(data, places, problems, None if problems else config)


def _whole(draft: Draft) -> Config:
    if draft.config is None:
        raise report(draft.problems, draft.places)
    return draft.config


def _checked(value: Any, path: KeyPath, problems: list[Problem]) -> Any:
    """The value as JSON has it; what JSON or YAML cannot say becomes None and a problem."""
    if len(path) > MAX_DEPTH:
        problems.append(Problem(path[:3], f"more than {MAX_DEPTH} levels inside each other"))
        return None
    value = plain(value) if isinstance(value, BaseModel) else value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or _unwritable(key):
                problems.append(Problem(path, f"found {found(key)} as a key; expected text of 1 to {MAX_KEY} letters"))
        good = [key for key in value if isinstance(key, str) and 0 < len(key) <= MAX_KEY and not _unwritable(key)]
        return {key: _checked(value[key], (*path, key), problems) for key in good}
    if isinstance(value, list | tuple):
        return [_checked(entry, (*path, index), problems) for index, entry in enumerate(value)]
    if isinstance(value, str | PurePath) and not _unwritable(str(value)):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        problems.append(Problem(path, f"found {found(value)}; expected a whole number of 64 bits"))
        return "wrong"
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and not math.isnan(value)):
        return value
    problems.append(Problem(path, f"found {found(value)}; expected text, a number, true, false, a list or keys"))
    # Text, not null: a key that stands there, but wrong, must not count as one that is absent.
    return "wrong"


def _unwritable(text: str) -> bool:
    """Half of a surrogate pair: no file can hold it."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)
