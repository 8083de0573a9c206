import numpy as np
import pytest

from mobjrec.data.corpus import events_from, table_from
from mobjrec.data.labels import After, at_least, copy, index, quantile, share
from mobjrec.types import Corpus, Labels

NAN = np.nan


@pytest.fixture
def corpus() -> Corpus:
    events = events_from(
        user=np.zeros(4),
        item=np.array([0, 1, 1, 0]),
        time=np.arange(4),
        feedback={"click": [1, 0, 1, NAN], "rating": [4, 5, NAN, 3.9], "seen": [30, 10, 5, 8]},
        numbers={"speed": [2, 2, 0, 1]},
    )
    items = table_from(["a", "b"], numbers={"length": [60, 0]})
    return Corpus(table_from(["u"]), items, events, units={"rating": "stars"})


def test_at_least_takes_the_value_itself_and_keeps_the_unknown(corpus):
    label = at_least("rating", 4)(corpus, {})
    np.testing.assert_array_equal(label.value, [1, 1, NAN, 0])
    assert label.value.dtype == np.float32
    assert not label.everywhere


def test_at_least_reaches_a_value_that_float32_rounds_down(corpus):
    feedback = {"part": np.float32([0.7, 0.69, 0.71, NAN])}
    corpus = corpus._replace(events=corpus.events._replace(feedback=feedback))
    np.testing.assert_array_equal(at_least("part", 0.7)(corpus, {}).value, [1, 0, 1, NAN])


def test_everywhere_says_that_never_logged_items_are_zeros(corpus):
    label = at_least("rating", 4, known="everywhere")(corpus, {})
    np.testing.assert_array_equal(label.value, [1, 1, NAN, 0])
    assert label.everywhere


def test_after_a_click_the_label_is_known_only_where_the_click_is_positive_and_known(corpus):
    label = at_least("rating", 4, known=After("click"))(corpus, {})
    np.testing.assert_array_equal(label.value, [1, NAN, NAN, NAN])
    assert not label.everywhere


def test_after_reads_a_label_derived_before_and_prefers_it_to_feedback(corpus):
    earlier = {"click": Labels(np.array([0, 1, 1, 1], np.float32))}
    found = copy("rating", known=After("click"))(corpus, earlier).value
    np.testing.assert_array_equal(found, np.float32([NAN, 5, NAN, 3.9]))


def test_index_is_the_weighted_sum_where_all_signals_are_known(corpus):
    label = index({"click": 10, "rating": 0.5}, unit="points")(corpus, {})
    np.testing.assert_allclose(label.value, [12, 2.5, NAN, NAN])
    assert label.unit == "points"


def test_share_divides_by_the_items_number_and_is_unknown_without_a_duration(corpus):
    label = share("seen", "length")(corpus, {})
    np.testing.assert_allclose(label.value, [0.5, NAN, NAN, 8 / 60], rtol=1e-6)
    assert label.unit == "share of length"


def test_share_is_unknown_where_the_duration_is_below_0(corpus):
    corpus = corpus._replace(events=corpus.events._replace(numbers={"speed": np.float32([2, -2, 0, NAN])}))
    np.testing.assert_array_equal(share("seen", "speed")(corpus, {}).value, [15, NAN, NAN, NAN])


def test_share_divides_by_the_events_number(corpus):
    np.testing.assert_allclose(share("seen", "speed")(corpus, {}).value, [15, 5, NAN, 8])


def test_copy_keeps_the_unit(corpus):
    assert copy("rating")(corpus, {}).unit == "stars"
    assert copy("x")(corpus, {"x": Labels(corpus.events.feedback["click"], unit="taps")}).unit == "taps"


def test_a_number_of_the_item_is_a_label_of_each_of_its_events(corpus):
    np.testing.assert_array_equal(at_least("length", 30)(corpus, {}).value, [1, 0, 0, 1])


@pytest.mark.parametrize("derive", [at_least("play", 1), index({"click": 1, "play": 2}), share("play", "speed")])
def test_an_unknown_source_is_named_with_those_there_are(corpus, derive):
    with pytest.raises(ValueError, match=r"'play'.*there are: made, click, rating, seen, speed, length"):
        derive(corpus, {"made": Labels(np.zeros(4, np.float32))})


def test_settings_that_cannot_be_are_refused_before_any_corpus():
    with pytest.raises(ValueError, match="value of at_least is nan"):
        at_least("rating", NAN)
    with pytest.raises(ValueError, match="no signals"):
        index({})
    with pytest.raises(ValueError, match=r"of has the weights \{'b': inf\}"):
        index({"a": 1.0, "b": np.inf})


def test_the_corpus_is_left_as_it_was(corpus):
    before = {name: column.copy() for name, column in corpus.events.feedback.items()}
    at_least("rating", 4, known=After("click"))(corpus, {})
    share("seen", "length", known=After("click"))(corpus, {})
    for name, column in before.items():
        np.testing.assert_array_equal(corpus.events.feedback[name], column)


TRAIN, TEST = 0, 2


def watched(seen, length, split, **feedback):
    """Events of items that are `length` long, watched for `seen`."""
    count = len(seen)
    events = events_from(
        user=np.zeros(count),
        item=np.zeros(count),
        time=np.arange(count),
        feedback={"seen": seen, **feedback},
        numbers={"length": length},
        split=np.array(split, np.int8),
    )
    return Corpus(table_from(["u"]), table_from(["a"]), events, units={})


def test_a_quantile_is_the_rank_among_training_events_of_like_duration():
    #        short, training   long, training   tests: short twice, long twice
    seen = [1, 2, 2, 4, 10, 30, 20, 40, 2, 9, 25, 5]
    length = [8, 9, 7, 6, 60, 61, 62, 63, 8, 8, 60, 99]
    found = quantile("seen", "length", groups=2)(watched(seen, length, 8 * [TRAIN] + 4 * [TEST]), {})
    # (below + equal / 2) / 4: 1 -> 1/8, the two 2s -> (1 + 1) / 4, 4 -> 3.5 / 4; 25 has two of four below it.
    np.testing.assert_allclose(found.value, [0.125, 0.5, 0.5, 0.875, 0.125, 0.625, 0.375, 0.875, 0.5, 1.0, 0.5, 0.0])
    assert found.unit == "quantile within length" and found.value.dtype == np.float32


@pytest.mark.parametrize("groups", [1, 4, 50])
def test_a_quantile_is_fitted_on_training_events_alone(groups):
    random = np.random.default_rng(0)
    seen, length = random.gamma(2, 10, 200), random.integers(5, 40, 200).astype(float)
    split = random.integers(0, 3, 200)
    label = lambda s, d: quantile("seen", "length", groups)(watched(s, d, split), {}).value
    other = np.where(split == TRAIN, seen, 1e6 * random.random(200))
    longer = np.where(split == TRAIN, length, 1e6 * random.random(200))
    here = split == TRAIN
    np.testing.assert_array_equal(label(seen, length)[here], label(other, longer)[here])
    # And a held-out event's label depends on its own numbers and on training events, on no other held-out one.
    one = np.flatnonzero(~here)[0]
    other[one], longer[one] = seen[one], length[one]
    assert label(other, longer)[one] == label(seen, length)[one]
    assert ((label(seen, length) >= 0) & (label(seen, length) <= 1)).all()


def test_quantiles_are_even_within_every_group_whatever_the_durations():
    random = np.random.default_rng(1)
    length = np.exp(random.normal(3, 1, 4000)).astype(np.float32)
    seen = length * random.random(4000)
    found = quantile("seen", "length", groups=8)(watched(seen, length, np.zeros(4000)), {}).value
    group = np.searchsorted(np.quantile(length, np.arange(1, 8) / 8, method="higher"), length, side="right")
    for number in range(8):
        np.testing.assert_allclose(np.sort(found[group == number]), (np.arange(500) + 0.5) / 500, atol=2e-3)


def test_one_duration_for_all_is_one_group():
    found = quantile("seen", "length")(watched([3, 1, 2, 9], [5] * 4, [TRAIN] * 3 + [TEST]), {}).value
    np.testing.assert_allclose(found, [5 / 6, 1 / 6, 3 / 6, 1])


def test_a_quantile_is_known_and_fitted_where_the_label_is_asked_for():
    corpus = watched([3, 1, 2, NAN], [5, 5, 5, 5], [TRAIN] * 4, click=[1, 0, 1, 1])
    np.testing.assert_allclose(
        quantile("seen", "length", known=After("click"))(corpus, {}).value, [0.75, NAN, 0.25, NAN]
    )
    np.testing.assert_allclose(quantile("seen", "length")(corpus, {}).value, [5 / 6, 1 / 6, 3 / 6, NAN])
    assert quantile("seen", "length", known="everywhere")(corpus, {}).everywhere


def test_a_quantile_without_anything_to_fit_is_refused():
    with pytest.raises(ValueError, match="groups of quantile is 0"):
        quantile("seen", "length", groups=0)
    with pytest.raises(ValueError, match="these events have no split"):
        corpus = watched([1], [1], [TRAIN])
        quantile("seen", "length")(corpus._replace(events=corpus.events._replace(split=None)), {})
    with pytest.raises(ValueError, match="no training event knows both seen and length"):
        quantile("seen", "length")(watched([1, NAN], [1, 1], [TEST, TRAIN]), {})
