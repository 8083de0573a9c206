import subprocess
import sys

import numpy as np
import pytest

from mobjrec.data import lists, splits
from mobjrec.data.readers import synthetic
from mobjrec.data.readers.oracle import trade_off
from mobjrec.errors import UserError
from mobjrec.testing.corpora import check_corpus
from mobjrec.types import Labels

SMALL = {"users": 300, "items": 144, "lists_per_user": 5}
# Settings that move feedback, history or the items shown: the oracle must hold under all.
WORLDS = [
    {},
    {"conflict": 0.9},
    {"position_bias": 0.7},
    {"missing": 0.3},
    {"cold_users": 0.1, "cold_items": 0.2},
]


def dataset(corpus, last=10):
    labels = {name: Labels(value) for name, value in corpus.events.feedback.items()}
    return lists.build(corpus, labels, splits.by_time(0.1, 0.15), history="click", last=last)


def square(part):
    """(rows, items [Q, L], {label: [Q, L]}) of lists that are all of one length."""
    count = len(part.user)
    return np.arange(count), part.item.reshape(count, -1), {k: v.reshape(count, -1) for k, v in part.labels.items()}


def whole(corpus):
    """Every item as a candidate of the first test list, under the hidden truth."""
    data = dataset(corpus)
    items = np.arange(len(corpus.items.id))[None]
    return corpus.best.truth(data, data.test, np.zeros(1, int), items)


def auc(scores, labels):
    """Mean over lists of the share of pairs (1, 0) in order."""
    ahead = np.sign(scores[:, :, None] - scores[:, None]) / 2 + 0.5
    pairs = (labels[:, :, None] > labels[:, None]).astype(float)
    known = pairs.sum((1, 2)) > 0
    return ((ahead * pairs).sum((1, 2))[known] / pairs.sum((1, 2))[known]).mean()


@pytest.mark.slow
def test_two_processes_make_the_same_bits_and_another_seed_others():
    code = (
        "import hashlib, mobjrec.data.readers as r\n"
        "def mark(**k):\n"
        "    c = r.synthetic(users=60, items=72, missing=0.2, cold_users=0.1, **k)\n"
        "    h = hashlib.sha256(repr([column.tolist() for column in c.items.text.values()]).encode())\n"
        "    e = c.events\n"
        "    for a in (e.user, e.item, e.time, *e.feedback.values()): h.update(a.tobytes())\n"
        "    return h.hexdigest()\n"
        "print(mark(), mark(seed=1))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    one, other = runs[0].stdout.split()
    assert one != other


@pytest.mark.parametrize("world", WORLDS)
def test_it_keeps_what_every_corpus_promises(world):
    check_corpus(synthetic(**SMALL, **world))


def test_a_list_shows_distinct_items_each_equally_often():
    corpus = synthetic(users=4000, items=24, list_size=20, lists_per_user=1)
    shown = corpus.events.item.reshape(-1, 20)
    assert (np.diff(np.sort(shown, 1), axis=1) > 0).all()
    # Each slot shows each item with probability 1 / 24: a chi-square of at most 20 * 23 degrees of freedom.
    counts = np.stack([np.bincount(slot, minlength=24) for slot in shown.T])
    expected = 4000 / 24
    assert ((counts - expected) ** 2 / expected).sum() < 20 * 23 + 5 * np.sqrt(2 * 20 * 23)


def test_a_list_may_be_as_long_as_the_catalogue():
    corpus = synthetic(users=50, items=12, list_size=12)
    np.testing.assert_array_equal(np.sort(corpus.events.item.reshape(-1, 12), 1), np.tile(np.arange(12), (400, 1)))


def test_words_tell_the_item_and_name_no_row():
    corpus = synthetic(**SMALL)
    texts = [f"{t} {d}" for t, d in zip(*corpus.items.text.values(), strict=True)]
    words = {word for text in texts for word in text.split()}
    assert all(len(text.split()) == 10 for text in texts)
    assert not any(letter.isdigit() for word in words for letter in word)
    assert len(words) <= 150  # far below the items' 144 * 10 words: shared, not names
    assert not corpus.users.text and not corpus.users.numbers and not corpus.items.categories


def test_items_with_the_same_words_have_the_same_hidden_means():
    """Whatever the oracle knows of items is in their words: topic by any topic word, lure and quality by theirs."""
    from mobjrec.data.readers.words import BAIT, QUALITY, topic_words

    corpus = synthetic(**SMALL)
    means, groups = whole(corpus), [*topic_words(8), *BAIT, *QUALITY]
    told = {}
    for row, text in enumerate(corpus.items.text["description"]):
        said = {n for n, group in enumerate(groups) if set(group) & set(text.split())}
        assert len(said) == 3
        told.setdefault(frozenset(said), []).append((means["click"][0, row], means["satisfaction"][0, row]))
    assert len(told) == 72
    assert all(len(set(values)) == 1 for values in told.values())


def test_lurid_words_draw_clicks_and_words_of_quality_satisfy():
    from mobjrec.data.readers.words import BAIT, QUALITY

    corpus = synthetic(users=2000, items=144)
    said = [set(text.split()) for text in corpus.items.text["description"]]
    for name, groups, other in (("click", BAIT, QUALITY), ("satisfaction", QUALITY, BAIT)):
        label = corpus.events.feedback[name].astype(float)
        by_level, by_other = (
            [np.nanmean(label[np.isin(corpus.events.item, [n for n, s in enumerate(said) if s & set(g)])]) for g in way]
            for way in (groups, other)
        )
        assert min(np.diff(by_level)) > 0.05
        assert max(by_level) - min(by_level) > 4 * (max(by_other) - min(by_other))


@pytest.mark.parametrize("conflict", [0.0, 0.25, 0.5, 1.0])
def test_conflict_is_the_angle_between_the_two_truths(conflict):
    means = whole(synthetic(**SMALL, conflict=conflict))
    logit = np.log(means["click"] / (1 - means["click"]))
    found = np.corrcoef(logit[0], means["satisfaction"][0])[0, 1]
    np.testing.assert_allclose(found, 1 - 2 * conflict, atol=1e-9)
    np.testing.assert_allclose([means["satisfaction"].mean(), means["satisfaction"].std()], [3, 1], atol=1e-6)


def test_position_bias_lowers_clicks_down_the_list_by_its_law():
    click = synthetic(users=4000, position_bias=0.5).events.feedback["click"].reshape(-1, 12)
    free = synthetic(users=4000).events.feedback["click"]
    rate, error = click.mean(0), click.std(0) / np.sqrt(len(click))
    assert (np.abs(rate - free.mean() / np.sqrt(1 + np.arange(12))) < 4.5 * error).all()


def test_labels_are_missing_by_the_share_and_satisfaction_is_known_after_clicks_alone():
    full, some = synthetic(**SMALL).events.feedback, synthetic(**SMALL, missing=0.3).events.feedback
    clicked = full["click"] == 1
    np.testing.assert_array_equal(np.isfinite(full["satisfaction"]), clicked)
    for name, eligible in (("click", clicked | ~clicked), ("satisfaction", clicked)):
        gone = np.isnan(some[name][eligible])
        assert abs(gone.mean() - 0.3) < 4.5 * np.sqrt(0.21 / len(gone))
        known = np.isfinite(some[name])
        np.testing.assert_array_equal(some[name][known], full[name][known])


@pytest.mark.parametrize(
    "share, lists_of_each", [(0.1, 5), (0.3, 2)]
)  # 0.15 (210 * 5 + 90 * 2) = 184.5 holds 90 * 2, not 90 * 3
def test_cold_users_and_items_are_as_many_as_asked_and_only_in_the_test_part(share, lists_of_each):
    corpus = synthetic(**SMALL, cold_users=share, cold_items=share)
    data = dataset(corpus)
    before = np.concatenate([data.train.user, data.valid.user])
    assert set(range(300)) - set(before) >= set(range(300 - round(300 * share), 300))
    assert len(set(before)) <= 300 - round(300 * share)
    first_cold = np.flatnonzero(corpus.events.user >= 300 - round(300 * share))[0]
    assert corpus.events.user[-120:].min() < 300 - round(300 * share) and first_cold < 0.9 * len(corpus.events.user)
    late = np.isin(data.test.user, np.arange(300 - round(300 * share), 300))
    assert late.sum() == lists_of_each * round(300 * share)
    warm = 144 - round(144 * share)
    assert max(data.train.item.max(), data.valid.item.max()) == warm - 1
    assert set(data.test.item) == set(range(144))


@pytest.mark.parametrize("world", WORLDS)
def test_predicted_means_are_the_means_of_the_labels(world):
    corpus = synthetic(users=8000, lists_per_user=6, seed=4, **world)
    data = dataset(corpus)
    rows, item, labels = square(data.test)
    for oracle in (corpus.best.best, corpus.best.truth):
        means = oracle(data, data.test, rows, item)
        for name in ("click", "satisfaction"):
            known = np.isfinite(labels[name])
            told, found = means[name][known], labels[name][known]
            for bin_ in np.array_split(np.argsort(told), 10):
                left = found[bin_] - told[bin_]
                assert abs(left.mean()) < 4.5 * left.std() / np.sqrt(len(left))


def test_the_posterior_mean_is_right_for_each_remembered_item():
    """Lists of one item in a world of six kinds and nine cells: label means by (remembered cell, shown item)."""
    corpus = synthetic(users=60_000, items=27, topics=3, list_size=1, lists_per_user=6, seed=5)
    data = dataset(corpus, last=1)
    rows, item, labels = square(data.test)
    means = corpus.best.best(data, data.test, rows, item)
    begin, end = data.test.history.T
    newest = np.where(end > begin, data.history[np.maximum(end - 1, 0)], 27)
    _, kind = np.unique(whole(corpus)["click"].round(12), return_inverse=True)
    group = np.append(kind.reshape(-1), kind.max() + 1)[newest]
    for name in ("click", "satisfaction"):
        known = np.isfinite(labels[name][:, 0])
        left, cell = (labels[name] - means[name])[known, 0], (group * 27 + item[:, 0])[known]
        count = np.bincount(cell)
        enough = count >= 30
        mean, square_ = (np.bincount(cell, left**power)[enough] / count[enough] for power in (1, 2))
        z = mean / np.sqrt((square_ - mean**2) / count[enough])
        # Where every mean is right, z is standard normal: its square averages 1, give or take sqrt(2 / n).
        assert len(z) > 100 and np.mean(z**2) < 1 + 4.5 * np.sqrt(2 / len(z))


def test_nobody_who_reads_the_same_beats_the_posterior_and_the_truth_beats_it():
    corpus = synthetic(users=3000, seed=6)
    data = dataset(corpus)
    part = data.test
    rows, item, labels = square(part)
    best, truth = (f(data, part, rows, item) for f in (corpus.best.best, corpus.best.truth))
    prior = corpus.best.best(data, part._replace(history=np.zeros_like(part.history)), rows, item)
    short = np.stack([np.maximum(part.history[:, 0], part.history[:, 1] - 2), part.history[:, 1]], 1)
    newest = corpus.best.best(data, part._replace(history=short), rows, item)
    click = [auc(found["click"], labels["click"]) for found in (prior, newest, best, truth)]
    assert click[0] + 0.05 < click[1] < click[2] - 0.01 and click[2] < click[3] - 0.01
    known = np.isfinite(labels["satisfaction"])
    error = [
        np.square((m["satisfaction"] - labels["satisfaction"])[known]).mean() for m in (prior, newest, best, truth)
    ]
    assert error == sorted(error, reverse=True)
    assert abs(error[3] - 0.25) < 0.01  # the noise alone, 0.5 stars


def test_without_a_history_all_kinds_are_equally_likely():
    corpus = synthetic(**SMALL)
    data = dataset(corpus)
    blank = data.test._replace(history=np.zeros_like(data.test.history))
    item = np.arange(144)[None]
    found = corpus.best.best(data, blank, np.zeros(1, int), item)
    # By hand, for lure 0: (favourite 1/8, second 1/8, else 6/8) of sigmoid(-1.6 + match - 1), match 2.6, 1.4, -1.2.
    sigmoid = 1 / (1 + np.exp(-np.array([0.0, -1.2, -3.8])))
    np.testing.assert_allclose(found["click"].min(), sigmoid @ [1 / 8, 1 / 8, 6 / 8], rtol=1e-9)


def test_padding_and_blocks_change_no_real_entry():
    corpus = synthetic(**SMALL)
    data = dataset(corpus)
    rows, item, _ = square(data.test)
    padded = np.where(np.arange(12) < 9, item, -1)
    whole_, part = (
        corpus.best.best(data, data.test, rows, item),
        corpus.best.best(data, data.test, rows[7:9], padded[7:9]),
    )
    for name in whole_:
        np.testing.assert_allclose(part[name][:, :9], whole_[name][7:9, :9], rtol=1e-12)


def test_the_trade_off_runs_from_the_best_of_one_to_the_best_of_the_other_and_no_mixture_beats_it():
    corpus = synthetic(**SMALL, conflict=0.8)
    data = dataset(corpus)
    shares = np.linspace(0, 1, 9)
    click, stars = np.array(trade_off(corpus.best, data, data.test, shares)).T
    assert (np.diff(click) >= 0).all() and (np.diff(stars) <= 0).all()
    assert click[-1] - click[0] > 0.1 and stars[0] - stars[-1] > 0.3
    rows, item, _ = square(data.test)
    means = corpus.best.best(data, data.test, rows, item)
    np.testing.assert_allclose(click[-1], np.sort(means["click"], 1)[:, -3:].mean())
    np.testing.assert_allclose(stars[0], np.sort(means["satisfaction"], 1)[:, -3:].mean())
    scaled = np.array([click / means["click"].std(), stars / means["satisfaction"].std()])
    for n, share in enumerate(shares):
        assert np.argmax(share * scaled[0] + (1 - share) * scaled[1]) == n or np.ptp(click) == 0


def test_without_conflict_one_order_is_best_for_both():
    corpus = synthetic(**SMALL, conflict=0.0)
    data = dataset(corpus)
    truth = corpus.best.truth(data, data.test, *square(data.test)[:2])
    order = np.argsort(truth["click"], 1, kind="stable")
    assert (np.diff(np.take_along_axis(truth["satisfaction"], order, 1), axis=1) >= -1e-9).all()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"conflict": 1.5}, "data.conflict is 1.5"),
        ({"missing": float("nan")}, "data.missing is nan"),
        ({"noise": -1.0}, "data.noise is -1.0"),
        ({"topics": 1}, "data.topics is 1"),
        ({"users": 0}, "data.users is 0"),
        ({"items": 20, "cold_items": 0.5}, "but 10 of 20 are there from the start"),
        ({"cold_users": 0.9}, "900 of 1000 users do not fit"),
    ],
)
def test_settings_that_make_no_corpus_are_named(settings, said):
    with pytest.raises(UserError, match=said):
        synthetic(**settings)


def test_filler_lengthens_descriptions_and_leaves_all_else():
    short, long = synthetic(**SMALL), synthetic(**SMALL, filler=20)
    counts = [
        (len(long_text.split()) - len(text.split()), long_text.startswith(text))
        for text, long_text in zip(short.items.text["description"], long.items.text["description"], strict=True)
    ]
    assert all(starts for _, starts in counts)
    assert {0, 20} <= {more for more, _ in counts} <= set(range(21))
    np.testing.assert_array_equal(short.events.feedback["click"], long.events.feedback["click"])
