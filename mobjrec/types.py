"""The seams: NamedTuples and aliases that every room speaks, without logic.

Axes: B lists on this device, L items a list, R packed rows of T tokens with S slots for texts, D embedding width,
F numeric and C categorical columns, K objectives, Q lists in a split. A text's name is its row times S plus its slot.
`where` is always bool, True for what is real.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
# A plain nested dict of arrays, or any tree of them: JAX itself gives trees no narrower type.
Tree = Any
# A number per objective, written by objective name in a config; `resolve` turns it into a tuple in the objectives' order.
PerObjective = tuple[float, ...]


class Texts(NamedTuple):
    """Distinct token sequences packed into R rows, up to S a row; the text in row r, slot s is named r * S + s.

    tokens, position, slot: [R, T] int32; slot is s + 1 for the row's s-th text, 0 for padding; position restarts with
        every text. None where `vector` stands.
    used: [R, S] bool, False for a slot without a text (its embedding is 0)
    hidden: [R, T, H] or None, from the store: what the frozen lower layers make of the tokens
    vector: [R, S, D] or None, from the store: the whole embedding, where the encoder is frozen
    """

    tokens: Array | None
    position: Array | None
    slot: Array | None
    used: Array
    hidden: Array | None = None
    vector: Array | None = None


class Side(NamedTuple):
    """Users [B], their history [B, H] (newest first), or items [B, L] or [1, L]: text by name, the rest by value.

    text: [...] int32 name in the global batch's texts, -1 = no text here; None where the model reads no text on this side
    ids: [..., C] int32, 0 = unseen in training or empty (a multi-valued column takes several slots that share one table)
    features: [..., F] float32, standardised on train
    """

    text: Array | None
    ids: Array
    features: Array


class Batch(NamedTuple):
    """B ranked lists, padded to L items; with a shared candidate set, items is [1, L] and the rest stays [B, L].

    user_texts, item_texts: Texts, or None where that side reads no text
    users, history, items: Side; history refers to item_texts and is None where the model reads no history vectors
    history_where: [B, H] bool or None
    context: [B, L, F'] float32, context_ids: [B, L, C'] int32 (position, hour, tab; named in Spec)
    labels: {name: [B, L] float32} clicks 0/1, dwell in seconds, ratings as published; 0 where not observed
    observed: {name: [B, L] bool} where the label is known (satisfaction: after a click only), always inside `where`
    where: [B, L] bool, True for a real item; a row of all False is a padding list
    weights: [B, L] float32, propensity weights, or how often a shared candidate was drawn for the list
    log_q: [B or 1, L] float32, log-probability that the candidate is in the set, by the draw or the batch; 0 as logged
    row: [B] int32, the list's row in its split, -1 for a padding list
    position: [B, L] int32 slot in which the item was shown, from 0, -1 where it was not or nobody knows; None where the
        corpus has no positions
    """

    user_texts: Texts | None
    item_texts: Texts | None
    users: Side
    history: Side | None
    history_where: Array | None
    items: Side
    context: Array
    context_ids: Array
    labels: dict[str, Array]
    observed: dict[str, Array]
    where: Array
    weights: Array
    log_q: Array
    row: Array
    position: Array | None = None


class Outputs(NamedTuple):
    """What the model says of a batch.

    scores: {head: [B, L], or [B, L, width] for a head wider than 1}
    users: [B, S, D]   items: [B or 1, L, D]
    """

    scores: dict[str, Array]
    users: Array
    items: Array


class Clock(NamedTuple):
    """Where training stands. step, epoch: int32 scalars."""

    step: Array
    epoch: Array


class Column(NamedTuple):
    """A categorical column as the model sees it: `size` rows in its table (row 0 is unseen or empty), `slots` wide."""

    name: str
    size: int
    slots: int = 1


class SideSpec(NamedTuple):
    """The columns of users, items or context. ids come in this order, each taking its `slots` columns."""

    text: bool = False
    ids: tuple[Column, ...] = ()
    numbers: tuple[str, ...] = ()


class LabelSpec(NamedTuple):
    """A label's unit and its mean and standard deviation over the observed training labels."""

    unit: str = ""
    mean: float = 0.0
    deviation: float = 1.0


class Spec(NamedTuple):
    """What model and objectives must know of the data; filled from dataset and tokeniser, never from the config.

    vocabulary: tokens, 0 where nothing reads text   item_row, user_row: longest text in tokens
    history: events a history holds at most, 0 where it is not given as item vectors
    labels: {name: LabelSpec}   lists: Q of the training split   catalogue: items
    positions: slots that items of training lists were shown in, 0 where none is known   objectives: K
    """

    vocabulary: int
    users: SideSpec
    items: SideSpec
    context: SideSpec
    labels: dict[str, LabelSpec]
    lists: int
    catalogue: int
    history: int = 0
    item_row: int = 0
    user_row: int = 0
    positions: int = 0
    objectives: int = 1


class Objective(NamedTuple):
    """One thing to optimise. Finite, with finite gradient, for any `where`.

    value: (Outputs, Batch, params, memory, Clock) -> ([B] lower is better, [B] bool it speaks of this list, memory)
    predict: (Outputs, params, memory) -> [B, L], what ranks for this objective: the expected label in its own unit where
        there is one
    heads: {name: width}   labels: names it reads; checked against model and dataset before anything compiles
    init: (key, Spec) -> (params, memory); None for most. params are trained and live at params["objectives"][NAME];
        memory gets no gradient, is checkpointed, and a device's change to it is summed over devices
    positive: whether every value is >= 0
    probability: whether `predict` is a probability of a binary label (log loss and accuracy are then reported)
    expectation: whether `predict` estimates the label in its own unit (RMSE is then reported)
    label: the label that measures this objective in an evaluation; "" where none does
    takes: what each of `labels` must be, "any", "gain" (>= 0), "grade" (few levels), "share" (0 to 1); () = any
    order: whether it learns the order within a list alone: equal labels say nothing to it
    relevant: whether a list whose labels are all 0 says nothing to it
    """

    value: Callable[..., tuple[Array, Array, Tree]]
    predict: Callable[..., Array]
    heads: dict[str, int]
    labels: tuple[str, ...]
    init: Callable[[Array, Spec], tuple[Tree, Tree]] | None = None
    positive: bool = True
    probability: bool = False
    label: str = ""
    expectation: bool = False
    takes: tuple[str, ...] = ()
    order: bool = False
    relevant: bool = False


class Signals(NamedTuple):
    """What a weighting may look at. A new signal is a new field here, not a new argument everywhere.

    losses: [K] float32   present: [K] bool, some list of some device spoke   gram: [K, K] or None
    preference: [K] or None   step, epoch: int32   key: PRNG key, the same on every device
    """

    losses: Array
    present: Array
    gram: Array | None
    preference: Array | None
    step: Array
    epoch: Array
    key: Array


class Weighting(NamedTuple):
    """How K objectives become one direction. Absent objectives are left out of the problem, get 0, and keep their state.

    init: K -> state, any tree of arrays; raises ValueError if its settings do not fit K
    update: (Signals, state) -> ([K] weights, state); finite, the paper's own scale; once a step, inside jit
    needs_gram: whether `update` reads `signals.gram`   needs_positive: whether losses must stay above 0
    observe: ([K] losses after the step, state) -> state; None spares the extra forward pass
    residual: state -> scalar, how far the last `update` was from solving its problem, by the problem's own condition and
        free of scale: 0 solved, 1 not at all; None where there is nothing to solve
    due: (Signals without a Gram matrix, state) -> bool, whether `update` reads the Gram matrix in this step (one of zeros
        stands there if not) and `observe` is called; None: in every step
    """

    init: Callable[[int], Tree]
    update: Callable[[Signals, Tree], tuple[Array, Tree]]
    needs_gram: bool = False
    needs_positive: bool = False
    observe: Callable[[Array, Tree], Tree] | None = None
    residual: Callable[[Tree], Array] | None = None
    due: Callable[[Signals, Tree], Array] | None = None


class Input(NamedTuple):
    """What a model reads of users or of items, as the config says it.

    text: template over the side's columns, "{title}. {description}"; for users everything from the first
        "{history.COLUMN}" on is repeated for each history event, newest first. "" = no text
    ids: categorical columns, "user" or "item" being the id itself   numbers: numeric columns
    history: for users only: whether the history also comes as item vectors
    """

    text: str = ""
    ids: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    history: bool = False


class Model(NamedTuple):
    """A ranker as pure functions over a plain nested dict of arrays. keys=None means no dropout.

    params["encoder"] holds all that encode_users and encode_items read, and nothing else does.

    init: key -> params
    encode_users, encode_items: (params, Texts, [R] keys or None) -> [R, S, D]   the dear part, once per distinct text;
        `params` is params["encoder"] alone; starts from `hidden` or `vector` where the store has them
    freeze: (params["encoder"], Texts) -> Texts, fills what untrained layers compute, `vector` where none trains and
        `hidden` where the upper ones do; None when all train
    item: (params, text [..., D] or None, ids, features, [B or 1] keys or None) -> [..., D]   the cheap join
    user: (params, text [B, D] or None, ids, features, history [B, H, D] or None, where [B, H] or None, [B] keys or None)
        -> [B, S, D]; S = 1 unless the scorer reads sequences
    score: (params, users [B, S, D], items [B or 1, L, D], context, context_ids, preference [K] or None, [B] keys or None)
        -> {head: [B, L] or [B, L, width]}
    heads: {name: width}
    trainable, shared: params -> tree of bool; shared = more than one objective reaches it
    conditioned: whether `score` reads the preference; None then stands for the equal one
    """

    init: Callable[[Array], Tree]
    encode_users: Callable[..., Array]
    encode_items: Callable[..., Array]
    item: Callable[..., Array]
    user: Callable[..., Array]
    score: Callable[..., dict[str, Array]]
    heads: dict[str, int]
    trainable: Callable[[Tree], Tree]
    shared: Callable[[Tree], Tree]
    freeze: Callable[[Tree, Texts], Texts] | None = None
    conditioned: bool = False


class Loss(Protocol):
    """(scores [..., L], labels [..., L], *, where [..., L], weights [..., L] or None) -> [...], one value per list."""

    def __call__(self, scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array: ...


class Facts(NamedTuple):
    """What a loss wants of labels and promises of values; data and weightings are held against it before training.

    labels: "any", "gain" (>= 0), "grade" (a gain of few levels) or "share" (0 to 1)   order, relevant: as of an Objective
    positive: whether no value is below 0   value: whether a score estimates the label in its own unit
    """

    labels: str = "any"
    order: bool = False
    relevant: bool = False
    positive: bool = True
    value: bool = False


class Metric(Protocol):
    """[..., L] each -> [...] per list, NaN where undefined; higher is better unless its docstring says not."""

    def __call__(self, scores: Array, labels: Array, *, where: Array) -> Array: ...


class PooledMetric(NamedTuple):
    """A metric over all lists together, summed shard by shard: the same value for any cut into batches.

    init: () -> state   update: (state, scores, labels, where) -> state   merge: (state, state) -> state
    value: state -> float, NaN where undefined
    """

    init: Callable[[], Tree]
    update: Callable[[Tree, Array, Array, Array], Tree]
    merge: Callable[[Tree, Tree], Tree]
    value: Callable[[Tree], float]


class Encoder(Protocol):
    """(vocabulary, positions, rngs) -> NNX module (Texts, [R] keys or None) -> [R, S, width], with an attribute `width`."""

    def __call__(self, vocabulary: int, positions: int, rngs: Any) -> Any: ...


class Scorer(Protocol):
    """(width, heads, Spec, rngs) -> NNX module (users, items, context, context_ids, preference, keys) -> {head: scores}.

    A module that reads the history's vectors, not the pooled user alone, has an attribute `sequence = True`; one that
    reads the preference has `conditioned = True` and takes None for the equal one.
    """

    def __call__(self, width: int, heads: dict[str, int], spec: Spec, rngs: Any) -> Any: ...


class Category(NamedTuple):
    """A categorical column, single- or multi-valued: row n has the values `value[start[n] : start[n + 1]]`.

    names: [V] strings, the distinct values   start: [N + 1] int64   value: [start[-1]] int32, rows of `names`
    """

    names: np.ndarray
    start: np.ndarray
    value: np.ndarray


class Table(NamedTuple):
    """Users or items, one row each. Strings are numpy arrays of StringDType.

    id: [N] strings, distinct   text: {column: [N] strings, "" = missing}
    categories: {column: Category}   numbers: {column: [N] float32, NaN = missing}
    """

    id: np.ndarray
    text: dict[str, np.ndarray]
    categories: dict[str, Category]
    numbers: dict[str, np.ndarray]


class Events(NamedTuple):
    """What users did, one row an event (or a shown item), in any order; arrays or memory maps.

    user, item: [E] int32, rows of their tables   time: [E] int64, unix seconds
    list: [E] int64, impression id, -1 = none   position: [E] int32, slot in the list from 0, -1 = unknown
    split: [E] int8, 0 train, 1 valid, 2 test as published, or None
    feedback: {name: [E] float32, NaN = not observed}
    categories: {name: Category}, numbers: {name: [E] float32}: the event's context (tab, hour), may be empty
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    list: np.ndarray
    position: np.ndarray
    split: np.ndarray | None
    feedback: dict[str, np.ndarray]
    categories: dict[str, Category]
    numbers: dict[str, np.ndarray]


class Corpus(NamedTuple):
    """What a reader returns: columns (arrays or memory maps), not an object with behaviour.

    units: {feedback or number: unit in words}, may be empty
    best: (Lists, {label: ...}) oracle of a synthetic corpus, or None: see readers/synthetic.py
    """

    users: Table
    items: Table
    events: Events
    units: dict[str, str]
    best: Any = None


class Labels(NamedTuple):
    """A label over events, as labels.py derives it.

    value: [E] float32, NaN = not observed   everywhere: whether an item that was never logged for the user counts as an
    observed 0   unit: in words
    """

    value: np.ndarray
    everywhere: bool = False
    unit: str = ""


class Lists(NamedTuple):
    """Q ranked lists of one split, ragged: list q holds the rows start[q] : start[q + 1].

    user: [Q] int32   time: [Q] int64, of its first event   history: [Q, 2] int64, span of Dataset.history
    start: [Q + 1] int64   item: [N] int32   event: [N] int64, row of the corpus' events
    labels: {name: [N] float32, NaN = not observed}   weights: [N] float32
    context_ids: [N, C'] int32   context: [N, F'] float32   split: 0 train, 1 valid, 2 test
    position: [N] int32, slot in which the item was shown, -1 = unknown; None where the corpus has no positions
    """

    user: np.ndarray
    time: np.ndarray
    history: np.ndarray
    start: np.ndarray
    item: np.ndarray
    event: np.ndarray
    labels: dict[str, np.ndarray]
    weights: np.ndarray
    context_ids: np.ndarray
    context: np.ndarray
    split: int = 0
    position: np.ndarray | None = None


class Dataset(NamedTuple):
    """A corpus cut into ranked lists.

    history: [M] int32 items of the events that pass the history's filter, by user, oldest first, once for each split
    whole: [U + 1] int64, user u's remembered events of all splits are history[whole[u] : whole[u + 1]]
    seen: ([U + 1] int64 start, [..] int32 items, [..] int8 split) every user's events, items sorted within a user
    everywhere: names of labels that are an observed 0 on items never logged for the user
    """

    users: Table
    items: Table
    train: Lists
    valid: Lists
    test: Lists
    history: np.ndarray
    whole: np.ndarray
    seen: tuple[np.ndarray, np.ndarray, np.ndarray]
    everywhere: frozenset[str]
    context: SideSpec
    labels: dict[str, LabelSpec]


class Drawn(NamedTuple):
    """Items to rank for B lists. With a shared set, item and log_q are [1, L] and the rest stays [B, L].

    item: int32, -1 = padding   row: [B, L] int64 row of Lists that a candidate comes from, -1 = it was drawn
    where: bool   weights, log_q: float32
    """

    item: np.ndarray
    row: np.ndarray
    where: np.ndarray
    weights: np.ndarray
    log_q: np.ndarray


class Candidates(Protocol):
    """Items to rank for these rows of a split, drawn anew each step from (seed, step): no cursor, so nothing to resume."""

    def __call__(self, dataset: Dataset, lists: Lists, rows: np.ndarray, random: np.random.Generator) -> Drawn: ...


class FederatedAlgorithm(NamedTuple):
    """Federated training as pure functions, knowing no engine.

    server: params -> server state   client: params -> private state that never leaves the client
    work: (params, private, batches [S, ...], key) -> (message, private, {name: value}); a padded step changes nothing
    combine: (server state, messages [U, ...], counts [U], present [U], key) -> server state
    """

    server: Callable[[Tree], Tree]
    client: Callable[[Tree], Tree]
    work: Callable[..., tuple[Tree, Tree, dict[str, Array]]]
    combine: Callable[..., Tree]
