"""What a model reads of a synthetic corpus, by hand, and the posterior that follows from it, against the labels."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mobjrec.config import load
from mobjrec.data.readers.told import Told
from mobjrec.data.readers.words import BAIT, QUALITY
from mobjrec.defaults import settled
from mobjrec.parts import feed_of
from mobjrec.reading import bound, dataset_of, labels_of

TINY = Path(__file__).parents[1] / "tiny.yaml"
NO_IDS = {"model.user.ids": "[]", "model.item.ids": "[]"}


class World(NamedTuple):
    corpus: Any
    dataset: Any
    feed: Any
    read: Told | str
    tokenizer: Any

    def best(self, lists, rows, item, read=None):
        return self.corpus.best.best(self.dataset, lists, rows, item, read)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def made(*changes: str) -> World:
        given = NO_IDS | dict(change.split("=", 1) for change in changes)
        config = settled(load(TINY, [f"{key}={value}" for key, value in given.items()]))
        model = bound(config, "model", config.model, "model")
        inputs = {"user": model.arguments["user"], "item": model.arguments["item"]}
        corpus = bound(config, "data", config.data, "data").call()
        dataset = dataset_of(config, corpus, labels_of(config, corpus))
        tokenizer, feed = feed_of(config, corpus, dataset, inputs, cache)
        return World(
            corpus, dataset, feed, corpus.best.told(feed, inputs, tokenizer, config.lists.history.of), tokenizer
        )

    return made


def square(part):
    count = len(part.user)
    return np.arange(count), part.item.reshape(count, -1)


def assert_same(one, other):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9)


def assert_differ(one, other):
    assert all(np.abs(one[name] - other[name]).max() > 0.01 for name in one)


def test_all_words_read_on_both_sides_is_all_there_is(world):
    for more in (
        ["model.user.text='{history.title} {history.description}'", "batch.user_row=512"],
        ["model.user={history: true}"],
    ):
        whole = world(*more)
        rows, item = square(whole.dataset.test)
        assert whole.read.item.all()
        found = whole.best(whole.dataset.test, rows, item, whole.read)
        assert_same(found, whole.best(whole.dataset.test, rows, item))


def test_titles_name_topics_only(world):
    titles = world("model.item.text='{title}'", "batch.user_row=512")
    np.testing.assert_array_equal(titles.read.item, [[True, False, False]] * 48)
    rows, item = square(titles.dataset.test)
    found = titles.best(titles.dataset.test, rows, item, titles.read)
    assert_differ(found, titles.best(titles.dataset.test, rows, item))
    # Where lure and quality are not read, items of one topic are one.
    assert all(len({round(v, 9) for v in values[0]}) <= 4 for values in found.values())


def test_what_an_items_row_cuts_off_is_not_read(world):
    # [CLS] and [SEP] leave six tokens: the title's four words, and two of the description.
    cut = world("batch.item_row=8")
    for row, words in enumerate(cut.corpus.items.text["description"].tolist()):
        first = set(words.split()[:2])
        told = [True, *(bool(first & {word for group in kind for word in group}) for kind in (BAIT, QUALITY))]
        assert cut.read.item[row].tolist() == told
    assert 0.2 < cut.read.item[:, 1].mean() < 0.5


def test_what_a_users_row_cuts_off_is_not_read(world):
    # Six tokens: a title of four words, two words of the next.
    cut, whole = world("batch.user_row=8"), world("batch.user_row=512")
    lists = cut.dataset.test
    rows, item = square(lists)
    two = np.stack([np.maximum(lists.history[:, 0], lists.history[:, 1] - 2), lists.history[:, 1]], 1)
    assert (two[:, 0] > lists.history[:, 0]).any()
    found = cut.best(lists, rows, item, cut.read)
    assert_same(found, whole.best(lists._replace(history=two), rows, item, whole.read))
    assert_differ(found, whole.best(lists, rows, item, whole.read))
    # Words of the template take room, too: three of them leave three tokens, of one title.
    said = world("batch.user_row=8", "model.user.text='part of it {history.title}'")
    one = np.stack([np.maximum(lists.history[:, 0], lists.history[:, 1] - 1), lists.history[:, 1]], 1)
    assert_same(
        said.best(lists, rows, item, said.read), whole.best(lists._replace(history=one), rows, item, whole.read)
    )


def test_words_in_pieces_are_read_when_their_last_piece_is_there(world):
    spelled = world("tokenizer.size=64", "batch.item_row=128")
    assert spelled.read.item.all()
    # Room for six pieces; some words have more.
    cut = world("tokenizer.size=64", "batch.item_row=8")
    words = [title.split()[0] for title in cut.corpus.items.text["title"].tolist()]
    short = [len(pieces) <= 6 for pieces in cut.tokenizer.encode_batch(words)]
    assert {True, False} == set(short)
    assert cut.read.item.tolist() == [[one, False, False] for one in short]


def test_without_a_history_in_the_input_nothing_is_known_of_a_user(world):
    none = world("model.user={text: 'somebody'}")
    rows, item = square(none.dataset.test)
    blank = none.dataset.test._replace(history=np.zeros_like(none.dataset.test.history))
    assert_same(none.best(none.dataset.test, rows, item, none.read), none.best(blank, rows, item))


@pytest.mark.parametrize(
    "changes, says",
    [
        (["model.user.ids=[user]"], "the model reads ids of users"),
        (["model.item={ids: [item]}"], "the model reads no text of items"),
        (
            ["model.item={text: '{title}', ids: [item]}"],
            "reads ids of items but not every word on their lure and quality",
        ),
        (["lists.history.of=satisfaction"], "the history is of satisfaction"),
        (["model.item.text='garden {title} {description}'"], "a template says 'garden' itself"),
    ],
)
def test_where_the_posterior_is_not_known_a_sentence_says_why(world, changes, says):
    assert says in world(*changes).read


def test_ids_of_items_whose_words_are_all_read_add_nothing(world):
    assert isinstance(world("model.item.ids=[item]").read, Told)


@pytest.mark.parametrize(
    "changes",
    [
        ["model.item.text='{title}'", "batch.user_row=8"],
        pytest.param(["batch.item_row=9"], marks=pytest.mark.slow),
        pytest.param(["model.user.text='{history.description}'", "batch.user_row=9"], marks=pytest.mark.slow),
    ],
)
def test_the_posterior_of_a_reader_is_the_mean_of_the_labels(world, changes):
    # About as many items as labels: which items' words are cut is drawn once.
    many = world("data.users=6000", "data.lists_per_user=5", "data.topics=8", "data.items=14400", *changes)
    lists = many.dataset.test
    rows, item = square(lists)
    for name, told in many.best(lists, rows, item, many.read).items():
        labels = lists.labels[name].reshape(item.shape)
        known = np.isfinite(labels)
        for part in np.array_split(np.argsort(told[known], kind="stable"), 10):
            left = labels[known][part] - told[known][part]
            assert abs(left.mean()) < 4.5 * left.std() / np.sqrt(len(left))
