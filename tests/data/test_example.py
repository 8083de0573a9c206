import numpy as np
import pytest

from mobjrec.data.example import example
from mobjrec.defaults import load
from mobjrec.errors import UserError
from mobjrec.resolve import bind, complete
from mobjrec.testing.corpora import check_corpus


def test_the_example_is_read_by_its_own_config(tmp_path):
    config = load(example(tmp_path / "shop"), ())
    corpus = bind("data", config.data, where="data").call()
    check_corpus(corpus)
    assert (len(corpus.users.id), len(corpus.items.id), len(corpus.events.user)) == (40, 60, 2560)
    labels = {name: bind("label", block, where=name).call()(corpus, {}) for name, block in config.labels.items()}
    satisfied, click = labels["satisfied"].value, corpus.events.feedback["click"]
    np.testing.assert_array_equal(np.isnan(satisfied), click == 0)
    assert 0.2 < np.nanmean(satisfied) < 0.8


def test_every_key_of_its_config_is_known(tmp_path):
    config = complete(load(example(tmp_path / "shop"), ()))
    assert config.weighting.settings["weights"] == {"click": 1.0, "satisfied": 1.0}


def test_what_users_click_follows_from_the_texts(tmp_path):
    config = load(example(tmp_path / "shop"), ())
    corpus = bind("data", config.data, where="data").call()
    topics, events = corpus.items.categories["topics"], corpus.events
    first = topics.value[topics.start[:-1]][events.item]
    rates = np.zeros((40, len(topics.names)))
    for topic in range(len(topics.names)):
        shown = np.bincount(events.user[first == topic], minlength=40)
        clicked = np.bincount(events.user[first == topic], events.feedback["click"][first == topic], minlength=40)
        rates[:, topic] = clicked / np.maximum(shown, 1)
    # Two favourite topics a user: the best topic is clicked far more often than the worst.
    assert (rates.max(1) - rates.min(1)).mean() > 0.4


def test_the_same_seed_writes_the_same_bytes_and_nothing_is_overwritten(tmp_path):
    one, two, other = (example(tmp_path / name, seed).parent for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    for name in ("events.csv", "items.csv", "users.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes() != (other / name).read_bytes()
    (one / "items.csv").unlink()
    before = (one / "events.csv").read_bytes()
    with pytest.raises(UserError, match=r"holds events.csv, users.csv, own-table.yaml already"):
        example(one, seed=5)
    assert (one / "events.csv").read_bytes() == before
    assert not (one / "items.csv").exists()
