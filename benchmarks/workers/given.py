"""The same data for all: a config's training lists cut to pairs, and the file that tells peers what ours works on."""

import json
from pathlib import Path

import jax
import numpy as np

from mobjrec.data import order
from mobjrec.data.batching import item_sequences, reads_users, user_sequences
from mobjrec.data.texts import divide, render
from mobjrec.parts import Parts
from mobjrec.types import Lists, Tree

STEPS = 400  # steps whose lists are told to the peers


def as_pairs(parts: Parts) -> Parts:
    """One list for each that has a history and a liked item: that item alone; nothing is masked as met elsewhere."""
    lists, label = parts.dataset.train, given_label(parts)
    liked = lists.labels[label] > 0
    owner = np.repeat(np.arange(len(lists.user)), np.diff(lists.start))
    told = lists.history[:, 1] > lists.history[:, 0]
    place = np.flatnonzero(liked & told[owner])
    place = place[np.unique(owner[place], return_index=True)[1]]
    mine = owner[place]
    fewer = lists._replace(
        user=lists.user[mine],
        time=lists.time[mine],
        history=lists.history[mine],
        start=np.arange(len(place) + 1),
        item=lists.item[place],
        event=lists.event[place],
        labels={name: values[place] for name, values in lists.labels.items()},
        weights=lists.weights[place],
        context_ids=lists.context_ids[place],
        context=lists.context[place],
        position=None if lists.position is None else lists.position[place],
    )
    none = np.zeros(len(parts.dataset.users.id) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int8)
    dataset = parts.dataset._replace(train=fewer, seen=none, everywhere=frozenset({label}))
    per_epoch = order.steps_per_epoch(len(mine), parts.config.batch.lists)
    return parts._replace(dataset=dataset, feed=parts.feed._replace(dataset=dataset), steps_per_epoch=per_epoch)


def given_label(parts: Parts) -> str:
    return next(iter(parts.objectives.values())).label


def export(parts: Parts, params: Tree, path: str, rows: np.ndarray) -> None:
    """All that a peer must know to do the same work. rows: [S, B] the lists of every step"""
    feed, lists = parts.feed, parts.dataset.train
    found = {"rows": rows, "start": lists.start, "item": lists.item, "label": lists.labels[given_label(parts)]}
    if feed.item_text is not None:
        texts = item_sequences(feed, np.arange(len(feed.item_tokens.start) - 1))
        found |= {"item_start": texts.start, "item_token": texts.token, "item_text": feed.item_text[lists.item]}
    if reads_users(feed):
        texts = user_sequences(feed, lists.user, lists.history)
        found |= {"user_start": texts.start, "user_token": texts.token}
    rest = {name: tree for name, tree in params.items() if name != "encoder"}
    for place, leaf in jax.tree_util.tree_leaves_with_path(rest):
        found["params/" + "/".join(str(getattr(step, "key", step)) for step in place)] = np.asarray(leaf)
    np.savez(path, **found)
    Path(path).with_suffix(".json").write_text(json.dumps(strings(parts, lists)), encoding="utf-8")


def strings(parts: Parts, lists: Lists) -> dict[str, list[str]]:
    """These lists' user texts and the items' texts as they were before they became tokens."""
    found: dict[str, list[str]] = {}
    user, item = parts.inputs["user"], parts.inputs["item"]
    if item.text:
        found["items"] = render(item.text, parts.corpus.items, "model.item.text").tolist()
    event = divide(user.text)[1]
    if event:
        told = render(event, parts.corpus.items, "model.user.text")
        spans = (parts.dataset.history[begin:stop][::-1] for begin, stop in lists.history.tolist())
        found["users"] = ["".join(told[span].tolist()) for span in spans]
    return found


def identity(params: Tree) -> Tree:
    """The towers' projections as the identity: the vectors are then the encoder's own."""
    changed = dict(params)
    for side in ("user", "item"):
        kernel = params[side]["join"]["text"]["kernel"]
        text = {**params[side]["join"]["text"], "kernel": np.eye(*kernel.shape, dtype=np.float32)}
        changed[side] = {**params[side], "join": {**params[side]["join"], "text": text}}
    return changed


def distinct(parts: Parts) -> np.ndarray:
    """The first lists, a batch of them, in which no text stands twice."""
    lists, feed, taken, met = parts.dataset.train, parts.feed, [], set()
    users = user_sequences(feed, lists.user, lists.history)
    for row in order.permutation(parts.config.seed, 0, len(lists.user)).tolist():
        mine = {users.token[users.start[row] : users.start[row + 1]].tobytes(), int(feed.item_text[lists.item[row]])}
        if not mine & met:
            met |= mine
            taken.append(row)
        if len(taken) == parts.config.batch.lists:
            break
    return np.array(taken)


def listed(parts: Parts) -> np.ndarray:
    """[S, B] the lists of every step."""
    count, lists = len(parts.dataset.train.user), parts.config.batch.lists
    return np.stack([order.rows(parts.config.seed, step, count, lists) for step in range(STEPS)])


def told_interactions(parts: Parts, params: Tree, path: str) -> None:
    """For peers without text: the splits' (user, item), the first batch's pairs and every user's and item's vector."""
    dataset, feed, first = (
        parts.dataset,
        parts.feed,
        order.rows(parts.config.seed, 0, len(parts.dataset.train.user), parts.config.batch.lists),
    )
    drawn = parts.train_candidates(dataset, dataset.train, first, order.random(parts.config.seed, 0))
    pair = drawn.where[:, :2].all(1)
    found = {
        "lists": len(first),
        "pairs": np.concatenate([dataset.train.user[first[pair]][:, None], drawn.item[pair, :2]], 1),
    }
    for name in ("train", "valid", "test"):
        lists = getattr(dataset, name)
        found[name] = np.stack([np.repeat(lists.user, np.diff(lists.start)), lists.item], 1)
    for side, ids in (("user", feed.user_ids), ("item", feed.item_ids)):
        found[f"{side}_vectors"] = np.asarray(params[side]["join"]["ids"][side]["rows"])[ids[:, 0]]
    np.savez(path, **found)
