"""What a config takes from its data: corpus, labels, lists, and the columns that its model reads; held against each other.

No text is tokenised and no model built here. What is wrong is told in one report.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobjrec import checks
from mobjrec.config import Block, Config, plain
from mobjrec.data import lists as list_room
from mobjrec.data.columns import side
from mobjrec.data.corpus import check, table_at
from mobjrec.data.labels import outside
from mobjrec.data.leaks import leaks
from mobjrec.data.rates import with_rates
from mobjrec.data.texts import columns_of, divide, render
from mobjrec.errors import UserError
from mobjrec.metrics import GRADES
from mobjrec.problems import Problem, dotted, report
from mobjrec.resolve import Bound, bind
from mobjrec.types import Column, Corpus, Dataset, Input, Labels, Objective, SideSpec, Table

# Candidates of ours that hold items which were not shown to the list's user.
DRAWN = ("catalogue", "in_batch", "popularity", "uniform")


class Data(NamedTuple):
    """leaks: a sentence for each kind of leak between the splits"""

    corpus: Corpus
    dataset: Dataset
    leaks: list[str]


def bound(config: Config, seam: str, block: Block, where: str) -> Bound:
    """The function that a block of the config names; a number per objective is read by the objectives' names."""
    return bind(seam, block, where=where, objectives=tuple(config.objectives))


def objectives_of(config: Config) -> dict[str, Objective]:
    """The objectives that the config names, in its order."""
    return {
        name: bound(config, "objective", block, f"objectives.{name}").call()
        for name, block in config.objectives.items()
    }


def data_of(config: Config, objectives: Mapping[str, Objective]) -> Data:
    """The corpus of a settled config and its ranked lists.

    UserError for all that is wrong with them, in one report: labels that are missing, cannot be made, lie outside of
    what an objective takes, or, where nothing else is wrong, say nothing in training; columns of the model's inputs that
    are not there; a split that leaves nothing to train on; and with `lists.strict` a leak.
    """
    corpus = bound(config, "data", config.data, "data").call()
    if ":" in config.data.use:
        # Our own readers check what they read, and name the file.
        if not isinstance(corpus, Corpus):
            raise UserError(f"data: {config.data.use} made a {type(corpus).__name__}; expected a Corpus")
        check(corpus, config.data.use)
    problems: list[str] = []
    labels = labels_of(config, corpus, problems)
    corpus = _noted(lambda: _rated(config, corpus, labels), problems, "rates") or corpus
    problems += _missing(objectives, labels)
    problems += _outside(config, corpus, objectives, labels)
    problems += _columns(config, corpus)
    of = config.lists.history.of
    if of and of not in labels:
        problems.append(f"lists.history.of: no label {of}; labels are {', '.join(labels)}")
        labels = {**labels, of: _nothing(corpus)}
    problems += _context(config, corpus)
    dataset = _noted(lambda: dataset_of(config, corpus, labels), problems)
    if dataset is not None and not problems:
        problems += _unlearnt(objectives, dataset) or _unordered(config, objectives, dataset)
    found = [] if dataset is None else _leaks(corpus, dataset)
    if config.lists.strict:
        problems += [f"lists.strict: {sentence}" for sentence in found]
    if dataset is None or problems:
        raise report([_placed(text) for text in problems], config.places, "config and data differ in {} points:")
    return Data(corpus, dataset, found)


def labels_of(config: Config, corpus: Corpus, problems: list[str] | None = None) -> dict[str, Labels]:
    """Feedback columns under their own names, then the derived ones in the order of the config.

    What is fitted is so on training events: the corpus that a rule is given has the run's split. problems: takes what is
    wrong, a label that cannot be made then being 0 throughout; None: UserError for the first.
    """
    labels = {name: Labels(values, unit=corpus.units.get(name, "")) for name, values in corpus.events.feedback.items()}
    if not config.labels:
        return labels
    taken = [] if problems is None else problems
    split = bound(config, "split", config.lists.split, "lists.split").call()
    parts = _noted(lambda: list_room.divided(corpus.events, split), taken)
    parts = np.zeros(len(corpus.events.user), np.int8) if parts is None else parts
    divided = corpus._replace(events=corpus.events._replace(split=parts))
    for name, block in config.labels.items():
        where = f"labels.{name}"
        rule = bound(config, "label", block, where)
        made = _noted(lambda rule=rule: rule.call()(divided, labels), taken, where)
        labels[name] = _nothing(corpus) if made is None else made
    if problems is None and taken:
        raise UserError(taken[0])
    return labels


def dataset_of(config: Config, corpus: Corpus, labels: Mapping[str, Labels]) -> Dataset:
    """The ranked lists of a config that is settled."""
    return list_room.build(
        corpus,
        labels,
        bound(config, "split", config.lists.split, "lists.split").call(),
        history=config.lists.history.of,
        last=config.lists.history.last,
        window=config.lists.window,
        eval_window=config.lists.eval_window,
        context_ids=tuple(corpus.events.categories),
        context_numbers=tuple(corpus.events.numbers),
    )


def _rated(config: Config, corpus: Corpus, labels: Mapping[str, Labels]) -> Corpus:
    """The corpus with the rates that the config asks for."""
    if not config.rates:
        return corpus
    split = bound(config, "split", config.lists.split, "lists.split").call()
    return with_rates(corpus, labels, config.rates, list_room.divided(corpus.events, split))


def inputs_of(config: Config) -> dict[str, Input]:
    """{"user", "item": what the model of a settled config reads of that side}."""
    return {own: Input(**config.model.settings.get(own, {})) for own in ("user", "item")}


def warn_of(config: Config, objectives: Mapping[str, Objective], dataset: Dataset) -> None:
    """Warn of data that training or evaluation can take and learn nothing from."""
    _warn_of_lists_of_one(config, dataset)
    _warn_of_constants(config, objectives, dataset)
    _warn_of_grades(objectives, dataset)


def _warn_of_lists_of_one(config: Config, dataset: Dataset) -> None:
    """Warn where most lists that are ranked as logged hold one item: any order of them is the best one."""
    parts = {"training": (config.candidates, [dataset.train]), "evaluation": (None, [dataset.valid, dataset.test])}
    parts["evaluation"] = (config.evaluate.candidates or config.candidates, parts["evaluation"][1])
    alone = []
    for name, (block, splits) in parts.items():
        sizes = np.concatenate([np.diff(lists.start) for lists in splits])
        if block.use == "as_logged" and len(sizes) and np.median(sizes) <= 1:
            alone.append(name)
    if alone:
        warnings.warn(
            f"most lists of {' and '.join(alone)} hold one item, and as_logged ranks them alone, so every order is the "
            "best one: let candidates (evaluate.candidates) be catalogue or in_batch, or join events of a user with "
            "lists.window (lists.eval_window)",
            stacklevel=2,
        )


def _warn_of_constants(config: Config, objectives: Mapping[str, Objective], dataset: Dataset) -> None:
    """Warn of labels that have one value wherever training knows them, and of which no drawn item is a 0."""
    drawn = config.candidates.use in DRAWN
    for name, objective in objectives.items():
        for label in objective.labels:
            values = dataset.train.labels[label]
            low, high = np.nanmin(values), np.nanmax(values)
            if low < high or (drawn and label in dataset.everywhere and low):
                continue
            warnings.warn(
                f"objectives.{name}: label {label} is {low:g} wherever training knows it, so no item can be told from "
                "another by it: mend its column or rule, or, where what was never shown should count as 0, derive it "
                "with `known: everywhere` and let `candidates` draw items",
                stacklevel=2,
            )


def _warn_of_grades(objectives: Mapping[str, Objective], dataset: Dataset) -> None:
    """Warn of labels above GRADES whose gain is 2^y - 1: the largest is then all that a list is worth."""
    for name, objective in objectives.items():
        for label, takes in zip(objective.labels, objective.takes, strict=False):
            largest = np.nanmax(dataset.train.labels[label])
            if takes == "grade" and largest > GRADES:
                warnings.warn(
                    f"objectives.{name}: label {label} goes up to {largest:g} in training, and its gain is 2^y - 1, so "
                    "a list's largest label is all that counts: derive grades of few levels under `labels` "
                    "({use: at_least} or {use: quantile}), or take the loss softmax",
                    stacklevel=3,
                )


def _noted(make: Callable[[], Any], problems: list[str], where: str = "") -> Any:
    """What `make` returns; None where it refuses, which goes to `problems`."""
    try:
        return make()
    except UserError as error:
        problems.append(str(error))
    except ValueError as error:
        problems.append(f"{where}: {error}")
    return None


def _nothing(corpus: Corpus) -> Labels:
    return Labels(np.zeros(len(corpus.events.user), np.float32))


def _missing(objectives: Mapping[str, Objective], labels: Mapping[str, Labels]) -> list[str]:
    return [
        f"objectives.{name}: label {label} is not there; labels are {', '.join(labels)}; "
        "derive it under `labels` or name one of these"
        for name, objective in objectives.items()
        for label in objective.labels
        if label not in labels
    ]


def _outside(
    config: Config, corpus: Corpus, objectives: Mapping[str, Objective], labels: Mapping[str, Labels]
) -> list[str]:
    """Labels outside of what an objective, or a metric that counts them as gains, takes.

    A value that is estimated in its own unit may be any number.
    """
    problems = []
    gains = any(name.partition("@")[0] == "ndcg" for name in config.evaluate.metrics)
    for name, objective in objectives.items():
        measured = objective.label if gains and not objective.expectation else ""
        for label, takes in zip(objective.labels, objective.takes or ("any",) * len(objective.labels), strict=True):
            if label not in labels or (takes == "any" and label != measured):
                continue
            wrong = outside(corpus, labels[label].value, takes == "share", _file(config))
            problems += [f"objectives.{name}: label {label} {wrong}"] if wrong else []
    return problems


def _unlearnt(objectives: Mapping[str, Objective], dataset: Dataset) -> list[str]:
    """Labels of objectives that no training list knows, or of which none is above 0 where only those are learnt from."""
    problems = []
    for name, objective in objectives.items():
        for label in objective.labels:
            values = dataset.train.labels[label]
            nothing = objective.relevant and not (values > 0).any()
            missing = "observed" if np.isnan(values).all() else "above 0" if nothing else ""
            if missing:
                problems.append(
                    f"objectives.{name}: label {label} is {missing} in none of the {len(dataset.train.user)} training "
                    "lists, so there is nothing to learn; mend its column or rule, or drop the objective"
                )
    return problems


def _unordered(config: Config, objectives: Mapping[str, Objective], dataset: Dataset) -> list[str]:
    """Labels whose order an objective learns, although no training list holds two values and no drawn item is a 0."""
    drawn, lists = config.candidates.use, dataset.train
    if drawn not in DRAWN:
        return []
    problems = []
    for name, objective in objectives.items():
        label = objective.label
        if not objective.order or label in dataset.everywhere:
            continue
        low, high = (one.reduceat(lists.labels[label], lists.start[:-1]) for one in (np.fmin, np.fmax))
        if (low < high).any():
            continue
        rule = config.labels.get(label)
        fix = f"write `labels: {{{label}: {{use: copy, of: {label}, known: everywhere}}}}`"
        if rule is not None:
            known = "in place of {after: ...}, " if isinstance(rule.settings.get("known"), Mapping) else ""
            fix = f"write `labels: {{{label}: {{..., known: everywhere}}}}` {known}".rstrip()
        problems.append(
            f"objectives.{name}: label {label} has no two values in any of the {len(lists.user)} training lists, and "
            f"items that {drawn} draws are no observed negatives of it (known: logged), so there is no order to learn; "
            f"let items that the user never met count as 0: {fix}, or let `candidates` be as_logged with lists that "
            "hold both"
        )
    return problems


def _file(config: Config) -> str:
    """The file whose rows are the events, "" where none is or its rows are not known any more."""
    told = config.data.settings
    if config.data.use != "table" or told.get("kinds") is not None or told.get("duplicates") == "last":
        return ""
    file, here = Path(told["path"]) / told["events"], Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _columns(config: Config, corpus: Corpus) -> list[str]:
    """Columns that the model's templates, ids and numbers name and the corpus has not."""
    problems: list[str] = []
    tables = {
        own: table_at(table, np.arange(min(len(table.id), 1)))
        for own, table in zip(("user", "item"), corpus[:2], strict=True)
    }
    for own, given in inputs_of(config).items():
        profile, event = divide(given.text) if own == "user" else (given.text, "")
        _rendered(profile, tables[own], f"model.{own}.text", problems)
        _rendered(event, tables["item"], f"model.{own}.text", problems)
        named = [Input(ids=(name,)) for name in given.ids] + [Input(numbers=(name,)) for name in given.numbers]
        for one in named:
            _noted(lambda one=one, own=own: side(tables[own], one, own, np.zeros(len(tables[own].id), bool)), problems)
    return problems


def _rendered(template: str, table: Table, where: str, problems: list[str]) -> None:
    _noted(lambda: render(template, table, where), problems)
    try:
        names = columns_of(template)
    except ValueError:
        # Told by the line above.
        return
    for name in names:
        _noted(lambda name=name: render(f"{{{name}}}", table, where), problems)


def _leaks(corpus: Corpus, dataset: Dataset) -> list[str]:
    split = np.zeros(len(corpus.events.user), np.int8)
    for lists in (dataset.valid, dataset.test):
        split[lists.event] = lists.split
    return leaks(corpus, split)


def _context(config: Config, corpus: Corpus) -> list[str]:
    """Columns of the events that the model would not read."""
    events = corpus.events
    if not events.categories and not events.numbers:
        return []
    context = SideSpec(False, tuple(Column(name, 2) for name in events.categories), tuple(events.numbers))
    problems: list[Problem] = []
    checks.check(plain(config), problems, context)
    return [f"{dotted(one.path)}: {one.text}" for one in problems]


def _placed(text: str) -> Problem:
    """A sentence as a problem of the key that it begins with, so that its line is told too."""
    key, _, rest = text.partition(": ")
    path = tuple(key.split("."))
    return Problem(path, rest) if path[0] in Config.model_fields else Problem((), text)
