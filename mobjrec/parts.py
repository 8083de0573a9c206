"""A config -> everything a run is made of, as values: dataset, feed, model, objectives, weighting, optimizer."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobjrec import state
from mobjrec.checks import heads_of
from mobjrec.config import Block, Config
from mobjrec.data import order
from mobjrec.data.batching import Feed, needs
from mobjrec.data.candidates import within
from mobjrec.data.columns import side
from mobjrec.data.sizes import Size, packed_width, plan
from mobjrec.data.texts import divide, render
from mobjrec.data.tokens import Tokenizer, doubts, tokenise
from mobjrec.defaults import settled
from mobjrec.errors import UserError
from mobjrec.inference import Functions, compiled
from mobjrec.preferences import Draw
from mobjrec.reading import bound, data_of, objectives_of
from mobjrec.types import Candidates, Corpus, Dataset, Input, Lists, Model, Objective, Spec, Weighting

# Draws that the packed shapes are planned from.
DRAWS = 2000


class Parts(NamedTuple):
    """What a config means. steps: updates in all; steps_per_epoch: those in which every list is met once.

    train_candidates, eval_candidates: Candidates   shared: training ranks one set for all lists
    preference: draws a step's, see preferences.py   optimizer: an optax transformation over the trained leaves
    tokenizer: None where nothing reads text
    inputs: {"user": Input, "item": Input}   notes: sentences about the data to tell before the start
    """

    config: Config
    corpus: Corpus
    dataset: Dataset
    feed: Feed
    spec: Spec
    tokenizer: Tokenizer | None
    inputs: dict[str, Input]
    model: Model
    functions: Functions
    objectives: dict[str, Objective]
    weighting: Weighting
    preference: Draw | None
    optimizer: Any
    train_candidates: Candidates
    eval_candidates: Candidates
    steps: int
    steps_per_epoch: int
    cache: Path
    notes: tuple[str, ...] = ()

    def first_state(self) -> state.TrainState:
        """The state before the first step, a function of the config alone."""
        return state.first(self.model, self.objectives, self.weighting, self.optimizer, self.spec, self.config.seed)


def assemble(config: Config, cache: Path) -> Parts:
    """The parts of a run; texts are tokenised into `cache`. UserError for what does not fit together."""
    config = settled(config)
    objectives = objectives_of(config)
    model_block = bound(config, "model", config.model, "model")
    inputs = {"user": model_block.arguments["user"], "item": model_block.arguments["item"]}
    corpus, dataset, notes = data_of(config, objectives)
    tokenizer, feed = feed_of(config, corpus, dataset, inputs, cache)
    spec = spec_of(dataset, feed, tokenizer)._replace(objectives=len(objectives))
    model = model_block.call(spec, heads_of(objectives))
    weighting = bound(config, "weighting", config.weighting, "weighting").call()
    draw = config.preference and bound(config, "preference", config.preference, "preference").call()
    per_epoch = order.steps_per_epoch(len(dataset.train.user), config.batch.lists)
    steps = config.steps or max(1, round(config.epochs * per_epoch))
    optimizer = bound(config, "optimizer", config.optimizer, "optimizer").call(steps)
    return Parts(
        config=config,
        corpus=corpus,
        dataset=dataset,
        feed=feed,
        spec=spec,
        tokenizer=tokenizer,
        inputs=inputs,
        model=model,
        functions=compiled(model, objectives),
        objectives=objectives,
        weighting=weighting,
        preference=draw,
        optimizer=optimizer,
        train_candidates=drawn_by(config, config.candidates, "candidates"),
        eval_candidates=drawn_by(config, config.evaluate.candidates, "evaluate.candidates"),
        steps=steps,
        steps_per_epoch=per_epoch,
        cache=cache,
        notes=(*notes, *doubts_of(feed)),
    )


def drawn_by(config: Config, block: Block, where: str) -> Candidates:
    """The candidates that a block names, every draw held to its tables."""
    return within(bound(config, "candidates", block, where).call(), where)


def feed_of(
    config: Config, corpus: Corpus, dataset: Dataset, inputs: dict[str, Input], cache: Path
) -> tuple[Tokenizer | None, Feed]:
    """Tokenised texts and columns of both sides."""
    user, item = inputs["user"], inputs["item"]
    met = {"user": np.zeros(len(corpus.users.id), bool), "item": np.zeros(len(corpus.items.id), bool)}
    met["user"][dataset.train.user] = True
    met["item"][dataset.train.item] = True
    user_ids, user_features, users = side(corpus.users, user, "user", met["user"])
    item_ids, item_features, items = side(corpus.items, item, "item", met["item"])
    longest = int(
        np.diff(np.concatenate([s.history for s in (dataset.train, dataset.valid, dataset.test)]), axis=1).max(
            initial=0
        )
    )
    feed = Feed(
        dataset,
        users,
        items,
        user_ids,
        user_features,
        item_ids,
        item_features,
        item_row=config.batch.item_row,
        user_row=config.batch.user_row,
        history=min(config.lists.history.last, max(longest, 1)) if user.history else 0,
    )
    profile, event = divide(user.text)
    texts = {
        "profile": render(profile, corpus.users, "model.user.text") if profile.strip() else None,
        "event": render(event, corpus.items, "model.user.text") if event else None,
        "item": render(item.text, corpus.items, "model.item.text") if item.text else None,
    }
    given = [t for t in texts.values() if t is not None]
    if not given:
        return None, feed
    if config.tokenizer is None:
        raise UserError(
            "tokenizer: a template reads text, so say which one, e.g. tokenizer: {use: trained, size: 2000}"
        )
    tokenizer = bound(config, "tokenizer", config.tokenizer, "tokenizer").call()(np.unique(np.concatenate(given)))
    distinct, item_text = (None, None) if texts["item"] is None else np.unique(texts["item"], return_inverse=True)
    limits = {"profile": feed.user_row - 2, "event": feed.user_row - 2, "item": feed.item_row - 2}  # [CLS], [SEP]
    tokens = {
        name: None
        if text is None
        else tokenise(distinct if name == "item" else text, tokenizer, cache / "tokens", limits[name])
        for name, text in texts.items()
    }
    feed = feed._replace(
        item_text=None if item_text is None else item_text.astype(np.int32),
        item_tokens=tokens["item"],
        profile_tokens=tokens["profile"],
        event_tokens=tokens["event"],
        cls=tokenizer.cls,
        sep=tokenizer.sep,
    )
    items, users = longest_texts(feed)
    return tokenizer, feed._replace(
        item_width=packed_width(feed.item_row, items), user_width=packed_width(feed.user_row, users)
    )


def longest_texts(feed: Feed) -> tuple[int, int]:
    """Tokens of the longest item text and, at most, of the longest user text in training."""
    items = 0 if feed.item_tokens is None else np.diff(feed.item_tokens.start).max(initial=0)
    lists, users = feed.dataset.train, np.zeros(len(feed.dataset.train.user), np.int64)
    if feed.profile_tokens is not None:
        users += np.diff(feed.profile_tokens.start)[lists.user]
    if feed.event_tokens is not None:
        told = np.concatenate([[0], np.cumsum(np.diff(feed.event_tokens.start)[feed.dataset.history])])
        users += told[lists.history[:, 1]] - told[lists.history[:, 0]]
    return int(items) + 2, int(users.max(initial=0)) + 2


def spec_of(dataset: Dataset, feed: Feed, tokenizer: Tokenizer | None) -> Spec:
    """What model and objectives must know of the data."""
    return Spec(
        vocabulary=tokenizer.size if tokenizer else 0,
        users=feed.users,
        items=feed.items,
        context=dataset.context,
        labels=dataset.labels,
        lists=len(dataset.train.user),
        catalogue=len(dataset.items.id),
        history=feed.history,
        item_row=feed.item_row,
        user_row=feed.user_row,
        positions=0 if dataset.train.position is None else int(dataset.train.position.max(initial=-1)) + 1,
    )


def multiple_of(config: Config, devices: int) -> int:
    """What packed rows come in multiples of: devices times rows a chunk."""
    return devices * (config.batch.chunk_rows or 1)


def sizes_of(parts: Parts, multiple: int) -> tuple[Size, ...]:
    """The fixed shapes of training batches, planned from seeded draws over the run (the epoch's short last one too)."""
    config, lists = parts.config, parts.dataset.train
    last = parts.steps_per_epoch - 1
    steps = np.unique(
        np.linspace(0, parts.steps - 1, min(DRAWS, parts.steps)).astype(int).tolist() + [min(last, parts.steps - 1)]
    )
    needed = []
    for step in steps.tolist():
        rows = order.rows(config.seed, step, len(lists.user), config.batch.lists)
        drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(config.seed, step))
        needed.append(needs(parts.feed, lists, rows, drawn))
    return plan(needed, multiple)


def shares_candidates(parts: Parts) -> bool:
    """Whether training ranks one candidate set for all lists of a batch."""
    rows = np.arange(min(2, len(parts.dataset.train.user)))
    drawn = parts.train_candidates(parts.dataset, parts.dataset.train, rows, order.random(0, 0))
    return parts.config.batch.lists > 1 and len(rows) > 1 and drawn.item.shape[0] == 1


def split_of(parts: Parts, name: str) -> Lists:
    """The lists of a split by name. UserError for an unknown one."""
    if name not in ("train", "valid", "test"):
        raise UserError(f"no split {name}; there are train, valid and test")
    return getattr(parts.dataset, name)


def doubts_of(feed: Feed) -> list[str]:
    """What the tokeniser could not read, and what the rows have no room for."""
    kinds = (
        (feed.item_tokens, "item texts", "batch.item_row"),
        (feed.profile_tokens, "user profiles", "batch.user_row"),
        (feed.event_tokens, "items as histories name them", "batch.user_row"),
    )
    return [sentence for tokens, *names in kinds if tokens is not None for sentence in doubts(tokens, *names)]
