"""A trained run in use: rank, score and encode, for users and items that training has met or never seen."""

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, final

import jax
import numpy as np

from mobjrec import catalogue, evaluate, mesh, notes
from mobjrec.config import Config
from mobjrec.config import load as load_config
from mobjrec.data.batching import item_sequences, reads_users, remembered, user_sequences
from mobjrec.data.columns import outside
from mobjrec.data.corpus import table_at
from mobjrec.data.texts import STRINGS, render
from mobjrec.data.tokens import Ragged, ragged, ragged_at
from mobjrec.errors import RunFolderError, UserError
from mobjrec.frozen import with_store
from mobjrec.inference import Users, encoded, gathered, wished
from mobjrec.parts import Parts, assemble
from mobjrec.resume import content, many, result, sealed, unchanged
from mobjrec.told import checked_preference, formed, shown, someone, told_items, told_texts
from mobjrec.types import Table, Tree

NEAREST = 3
# Pairs that are scored at a time; fewer are padded to a power of two, so that few shapes are compiled.
PAIRS = 1024
# Items that are scored at a time for one user.
ITEMS = 1 << 16


class Items(NamedTuple):
    """Items to rank. id, text (to show): [N] strings   matrix: [N, D] vectors   row: [N] in the corpus, -1 = not there"""

    id: np.ndarray
    text: np.ndarray
    matrix: jax.Array | np.ndarray
    row: np.ndarray


@final
class Trained(NamedTuple):
    """A trained run. `rank`, `score`, `encode_users` and `encode_items` are what the command line calls, too.

    rows: {"user" or "item": {id: its row}}
    """

    folder: Path
    parts: Parts
    params: Tree
    memory: Tree
    scale: dict[str, tuple[float, float]]
    step: int
    items: Items
    rows: dict[str, dict[str, int]]

    def rank(
        self,
        user: str | None = None,
        *,
        text: str | Sequence[str] | None = None,
        item: str | None = None,
        items: Any = None,
        top: int = 10,
        prefer: dict[str, float] | None = None,
        again: bool = False,
    ) -> list[dict[str, Any]]:
        """The `top` items by utility for a user's id, for behaviour told as text, or for someone who liked an item.

        items: what to rank in place of the catalogue: ids, or a Table, a file, a data frame or a list of dicts, as
        `told_items` reads it. Items of the corpus are ranked as in the catalogue, whatever else is told of them; others
        through what is told. An id that is given twice is ranked once
        prefer: {objective: weight}, equal by default; a conditioned model is told it, too
        again: also what the user is known to have liked already
        text: one text an event, newest first, each in the place of an event in the user's template
        Returns [{"rank", "item", "text", "utility", a number per objective}]. UserError for an unknown id or objective, and
        for words or an item where the model reads nothing of what a user did.
        """
        if not isinstance(top, Integral) or top < 1:
            raise UserError(f"top is {top!r}; it must be a whole number of at least 1")
        prefer = checked_preference(self.parts, prefer)
        who = self._user(user, text, item)
        ranked = self.items if items is None else self._told(items, once=True)
        if not len(ranked.id):
            raise UserError("items is empty; give those to rank, or none to rank the catalogue")
        found = self._predicted(who, ranked, prefer)
        total = evaluate.utility(found, self.scale, prefer)[0]
        if not again:
            total = np.where(np.isin(ranked.row, self._liked(user, item)), -np.inf, total)
        best = [n for n in np.argsort(-total, kind="stable")[:top].tolist() if np.isfinite(total[n])]
        return [
            {
                "rank": place,
                "item": str(ranked.id[n]),
                "text": str(ranked.text[n]),
                "utility": float(total[n]),
                **{name: float(values[0, n]) for name, values in found.items()},
            }
            for place, n in enumerate(best, start=1)
        ]

    def score(
        self, users: Sequence[str], items: Sequence[str], prefer: dict[str, float] | None = None
    ) -> dict[str, np.ndarray]:
        """{objective: [n]} of n pairs of known ids: each objective's `predict`; each user is encoded once.

        prefer: what a conditioned model is told, equal by default; others do not read it. UserError as for `rank`, and where
        there are not as many users as items.
        """
        who, what, prefer = self._rows("user", users), self._rows("item", items), checked_preference(self.parts, prefer)
        if len(who) != len(what):
            raise UserError(f"there are {len(who)} users and {len(what)} items; score takes pairs, one item a user")
        if not len(who):
            return {name: np.zeros(0, np.float32) for name in self.parts.objectives}
        distinct, place = np.unique(who, return_inverse=True)
        rows, size = self._known_users(distinct), min(PAIRS, 1 << (len(who) - 1).bit_length())
        found = []
        for begin in range(0, len(who), size):
            part = np.minimum(np.arange(begin, begin + size), len(who) - 1)
            these = jax.tree.map(lambda array, at=place[part]: array[at], rows)
            found.append(self._predict(these, what[part, None], self.items.matrix, prefer))
        return {name: np.concatenate([one[name][:, 0] for one in found])[: len(who)] for name in found[0]}

    def top(
        self, users: Sequence[str], k: int = 10, *, prefer: dict[str, float] | None = None, again: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows [n, k] of `items` and utilities [n, k] of the best for n known users, as `rank` finds them for one.

        Exact, in blocks, so that memory does not grow with users times items; -1 and -inf where there are fewer than k.
        prefer, again, UserError: as for `rank`
        """
        if not isinstance(k, Integral) or k < 1:
            raise UserError(f"k is {k!r}; it must be a whole number of at least 1")
        who, prefer = self._rows("user", users), checked_preference(self.parts, prefer)
        if not len(who):
            return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
        spans = np.stack(whole_histories(self.parts, who), 1)
        gone = [
            self.parts.dataset.history[a:a] if again else self.parts.dataset.history[a:b] for a, b in spans.tolist()
        ]
        known = self._known_users(who)
        return catalogue.best(
            self.parts, self.params, self.memory, self.items.matrix, known, gone, int(k), self.scale, prefer
        )

    def encode_users(self, users: Sequence[str]) -> np.ndarray:
        """User vectors [n, D] of known ids, as the scorer reads them."""
        who = self._rows("user", users)
        if not len(who):
            return np.zeros((0, self.items.matrix.shape[1]), np.float32)
        distinct, place = np.unique(who, return_inverse=True)
        rows = self._known_users(distinct)
        return np.asarray(self.parts.functions.vectors(self.params, rows, self.items.matrix))[place, 0]

    def encode_items(self, items: Any) -> np.ndarray:
        """Item vectors [n, D] of ids, or of items as `rank` takes them, which need no id here."""
        return np.asarray(self._told(items, named=False).matrix)

    @notes.shown()
    def _told(self, items: Any, named: bool = True, once: bool = False) -> Items:
        """The items that are meant: those of the corpus as they are, others through what is told."""
        known, table = self.items, None
        if isinstance(items, list | tuple | np.ndarray) and all(isinstance(one, str) for one in items):
            row = self._rows("item", list(dict.fromkeys(items)) if once else items)
        else:
            table, row = told_items(self.parts, items, self.rows["item"], named)
        new = np.flatnonzero(row < 0)
        if len(new) == len(row) and table is not None:
            return new_items(self, table)
        found = Items(known.id[row], known.text[row], np.array(known.matrix)[row], row)
        if len(new):
            told = new_items(self, table_at(table, new))
            for there, here in zip(found[:3], told[:3], strict=True):
                there[new] = here
        return found

    def _predicted(
        self, users: tuple[Users, np.ndarray | None], ranked: Items, prefer: dict[str, float]
    ) -> dict[str, np.ndarray]:
        """Predictions [1, N]; a history of new items has its vectors after those of the ranked ones."""
        rows, extra = users
        matrix = ranked.matrix
        if rows.history is not None:
            # History rows count from the corpus' items on; put those and the told texts behind what is ranked.
            whole = ranked is self.items
            behind = [] if whole else [np.asarray(self.items.matrix)]
            behind += [] if extra is None else [extra]
            shift = 0 if whole else len(matrix)
            rows = rows._replace(history=np.where(rows.history >= 0, rows.history + shift, -1))
            matrix = np.concatenate([matrix, *behind])
        every = np.arange(len(ranked.id), dtype=np.int32)[None]
        found = [self._predict(rows, every[:, a : a + ITEMS], matrix, prefer) for a in range(0, every.size, ITEMS)]
        return {name: np.concatenate([one[name] for one in found], axis=1) for name in found[0]}

    def _predict(self, rows: Users, items: np.ndarray, matrix: Any, prefer: dict[str, float]) -> dict[str, np.ndarray]:
        given = catalogue.unknown(self.parts, len(rows.ids), items.shape[1])
        wish = wished(self.parts.model, self.parts.objectives, prefer)
        return jax.device_get(self.parts.functions.predict(self.params, self.memory, rows, matrix, items, *given, wish))

    def _user(self, user: str | None, text: str | Sequence[str] | None, item: str | None):
        given = [name for name, value in (("user", user), ("text", text), ("item", item)) if value is not None]
        if len(given) != 1:
            raise UserError(f"say whom to rank for: one of user, text or item, not {' and '.join(given) or 'none'}")
        if user is not None:
            return self._known_users(np.array([self._row("user", user)])), None
        if item is not None:
            return self._someone(np.array([self._row("item", item)]), None)
        return self._someone(np.zeros(0, int), told_texts(self.parts, text))

    def _liked(self, user: str | None, item: str | None) -> np.ndarray:
        """Items that a user is known to have liked, or the one that was named."""
        if user is not None:
            begin, stop = whole_histories(self.parts, np.array([self._row("user", user)]))
            return self.parts.dataset.history[begin[0] : stop[0]]
        return np.array([self._row("item", item)]) if item is not None else np.zeros(0, int)

    def _known_users(self, who: np.ndarray) -> Users:
        """Users of the corpus with everything they are known to have liked."""
        feed, (begin, stop) = self.parts.feed, whole_histories(self.parts, who)
        begin = np.maximum(begin, stop - self.parts.config.lists.history.last)
        spans = np.stack([begin, stop], 1)
        text = self._encoded_users(user_sequences(feed, who, spans)) if reads_users(feed) else None
        return Users(text, feed.user_ids[who], feed.user_features[who], remembered(feed, spans))

    def _someone(self, liked: np.ndarray, told: list[str] | None) -> tuple[Users, np.ndarray | None]:
        """A user of no id who liked these items of the corpus, or of whom only texts are told."""
        feed = self.parts.feed
        if told is None and feed.event_tokens is None and not feed.history:
            raise UserError(
                "this model reads nothing of what a user liked, so it cannot rank for an item; use --user ID"
            )
        sequence = someone(self.parts, liked, told)
        text = None if sequence is None else self._encoded_users(sequence)
        history = extra = None
        if feed.history:
            history = np.full((1, feed.history), -1)
            if told is None:
                history[0, : len(liked)] = liked[: feed.history]
            elif feed.item_text is not None:
                table = Table(np.array([str(n) for n in range(len(told))], STRINGS), {}, {}, {})
                texts = formed(self.parts.inputs["item"].text, told, "model.item.text")
                extra = np.asarray(new_items(self, table, texts).matrix)
                count = min(len(told), feed.history)
                history[0, :count] = len(self.items.id) + np.arange(count)
        if told is not None and text is None and extra is None:
            raise UserError("this model reads no text of users or items, so it cannot rank for a text; use --user ID")
        ids = np.zeros((1, feed.user_ids.shape[1]), np.int32)
        return Users(text, ids, np.zeros((1, feed.user_features.shape[1]), np.float32), history), extra

    def _encoded_users(self, sequences: Ragged) -> np.ndarray:
        count = len(sequences.start) - 1
        parts = self.parts
        blocks = encoded(
            parts.functions.encode_users, self.params["encoder"], lambda rows: ragged_at(sequences, rows), count,
            parts.feed.user_row,
        )  # fmt: skip
        return gathered(blocks, count)

    def _rows(self, kind: str, names: Sequence[str]) -> np.ndarray:
        """Rows [n] of known ids."""
        if isinstance(names, str):
            raise UserError(f"{kind}s is the text {names!r}; give a list of ids, [{names!r}]")
        return np.array([self._row(kind, name) for name in names], np.int64)

    def _row(self, kind: str, name: str) -> int:
        found = self.rows[kind].get(name) if isinstance(name, str) else None
        if found is None:
            table = self.parts.dataset.users if kind == "user" else self.parts.dataset.items
            some = ", ".join(table.id[:NEAREST].tolist())
            raise UserError(f"no {kind} {name!r} in this corpus; its {kind}s are {some} ... ({len(table.id)} in all)")
        return found


def load(folder: Path | str, cache: Path | None = None) -> Trained:
    """A trained run: its best step where the config selects one, else the newest that is sealed.

    RunFolderError where there is no run, none of its steps is sealed yet, or its data or tokeniser are not what they were;
    UserError where the devices are not there that JAX is told to take.
    """
    from mobjrec.data.download import cache_folder

    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no config.yaml; `mobjrec train` makes one")
    cache = cache or cache_folder()
    mesh.keep_compilations(cache / "compiled")
    mesh.present()
    config = load_config(folder / "config.yaml")
    _data_there(config, folder)
    parts = assemble(config, cache)
    unchanged(folder, content(parts))
    like = jax.eval_shape(parts.first_state)
    found = sealed(folder, {"params": like.params, "memory": like.memory})
    if found is None:
        raise RunFolderError(f"{folder} {many(folder) or 'has no sealed checkpoint yet; train it first'}")
    tree, seal = found
    parts = with_store(parts, tree["params"])
    over = result(folder)
    scale = over["scale"] if over else evaluate.scale_of(parts, tree["params"], tree["memory"])
    scale = {name: tuple(pair) for name, pair in scale.items()}
    matrix = jax.device_put(catalogue.matrix(parts, tree["params"]))
    items = Items(parts.dataset.items.id, shown(parts, parts.dataset.items), matrix, np.arange(len(matrix)))
    tables = {"user": parts.dataset.users, "item": parts.dataset.items}
    rows = {kind: {name: row for row, name in enumerate(table.id.tolist())} for kind, table in tables.items()}
    return Trained(folder, parts, tree["params"], tree["memory"], scale, seal["step"], items, rows)


def _data_there(config: Config, folder: Path) -> None:
    """RunFolderError where the run's data were moved or removed."""
    path = config.data.settings.get("path")
    if isinstance(path, str) and os.path.isabs(path) and not Path(path).exists():
        raise RunFolderError(
            f"{folder} reads its data from {path}, which is not there any more; put them back, or write their new place as "
            f"data.path in {folder / 'config.yaml'} (they are compared with what was trained on)"
        )


def new_items(trained: Trained, table: Table, texts: np.ndarray | None = None) -> Items:
    """Items that the corpus has not: through their text, categories and numbers; their own ids are unseen."""
    parts, feed = trained.parts, trained.parts.feed
    wanted = parts.inputs["item"]
    count = len(table.id)
    if not (wanted.text or wanted.numbers or set(wanted.ids) - {"item"}):
        raise UserError(
            "this model knows an item by its id alone, so it cannot rank one that training has not met; "
            "give model.item a text, categories or numbers"
        )
    text = None
    if feed.item_text is not None:
        texts = render(wanted.text, table, "items") if texts is None else texts
        tokens = parts.tokenizer.encode_batch(texts.tolist())
        told = feed._replace(item_tokens=ragged(tokens))
        encode, encoder = parts.functions.encode_items, trained.params["encoder"]
        text = gathered(encoded(encode, encoder, lambda rows: item_sequences(told, rows), count, feed.item_row), count)
    met = np.zeros(len(parts.dataset.items.id), bool)
    met[parts.dataset.train.item] = True
    ids, features = outside(table, parts.dataset.items, wanted, "item", met)
    matrix = parts.functions.items(trained.params, text, ids, features)
    return Items(table.id, table.id if texts is None else texts, matrix, np.full(count, -1))


def whole_histories(parts: Parts, who: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spans of `dataset.history` with all that these users are known to have liked, in any split."""
    return parts.dataset.whole[who], parts.dataset.whole[who + 1]
