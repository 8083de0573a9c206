import numpy as np
import pytest

from mobjrec.data import candidates
from mobjrec.data.batching import labels_of
from mobjrec.errors import UserError
from mobjrec.types import Dataset, LabelSpec, Lists, SideSpec, Table

STRINGS = np.dtypes.StringDType()
ITEMS = 8


def lists(split: int, user: list[int], items: list[list[int]], clicks: list[list[float]]) -> Lists:
    flat = [item for row in items for item in row]
    return Lists(
        user=np.array(user, np.int32),
        time=np.arange(len(user)),
        history=np.zeros((len(user), 2), np.int64),
        start=np.cumsum([0] + [len(row) for row in items]),
        item=np.array(flat, np.int32),
        event=np.arange(len(flat)),
        labels={"click": np.array([c for row in clicks for c in row], np.float32)},
        weights=np.ones(len(flat), np.float32),
        context_ids=np.zeros((len(flat), 0), np.int32),
        context=np.zeros((len(flat), 0), np.float32),
        split=split,
    )


@pytest.fixture
def dataset() -> Dataset:
    """User 0 met 1, 2 in training, 3 in valid, 4 in test; user 1 met 2, 5 in training, 6 in test."""
    train = lists(0, [0, 1], [[1, 2], [2, 5]], [[1, 0], [1, np.nan]])
    valid = lists(1, [0], [[3]], [[1]])
    test = lists(2, [0, 1], [[4], [6]], [[1], [0]])
    seen = (np.array([0, 4, 7]), np.array([1, 2, 3, 4, 2, 5, 6]), np.array([0, 0, 1, 2, 0, 0, 2], np.int8))
    items = Table(np.array([f"i{n}" for n in range(ITEMS)], STRINGS), {}, {}, {})
    users = Table(np.array(["a", "b"], STRINGS), {}, {}, {})
    labels = {"click": LabelSpec()}
    none = np.zeros(0, np.int32)
    return Dataset(
        users, items, train, valid, test, none, np.zeros(3, int), seen, frozenset({"click"}), SideSpec(), labels
    )


def drawn(dataset: Dataset, which, split: str = "train", rows: tuple[int, ...] = (0, 1), seed: int = 0):
    return which(dataset, getattr(dataset, split), np.array(rows), np.random.default_rng(seed))


def kept(found, row: int) -> list[int]:
    item = np.broadcast_to(found.item, found.where.shape)
    return sorted(item[row][found.where[row]].tolist())


def test_as_logged_is_what_was_shown_padded(dataset):
    found = drawn(dataset, candidates.as_logged(), rows=(1, -1))
    assert found.item.tolist() == [[2, 5], [-1, -1]]
    assert found.where.tolist() == [[True, True], [False, False]]
    assert found.row.tolist() == [[2, 3], [-1, -1]]


def test_a_size_samples_longer_lists_anew(dataset):
    found = {tuple(drawn(dataset, candidates.as_logged(1), seed=n).item[:, 0].tolist()) for n in range(20)}
    assert found == {(1, 2), (1, 5), (2, 2), (2, 5)}


def test_uniform_masks_what_the_user_met_and_repetitions(dataset):
    for seed in range(20):
        found = drawn(dataset, candidates.uniform(negatives=30), seed=seed)
        negatives = found.item[:, 2:]
        for row, met in enumerate(({1, 2}, {2, 5})):
            there = negatives[row][found.where[row, 2:]].tolist()
            assert not met & set(there)
            assert len(there) == len(set(there))
            assert set(there) <= set(range(ITEMS))


def test_the_log_q_of_uniform_is_that_of_being_drawn_at_all(dataset):
    found = drawn(dataset, candidates.uniform(negatives=3))
    assert not found.log_q[:, :2].any()
    np.testing.assert_allclose(found.log_q[:, 2:], np.log(1 - (1 - 1 / ITEMS) ** 3), rtol=1e-6)


def test_uniform_reaches_every_other_item(dataset):
    reached = set()
    for seed in range(60):
        reached |= set(kept(drawn(dataset, candidates.uniform(negatives=4), seed=seed), 0))
    assert reached == set(range(ITEMS))


def test_in_batch_is_one_set_without_false_negatives(dataset):
    found = drawn(dataset, candidates.in_batch())
    assert found.item.shape[0] == 1
    assert found.item[0][found.item[0] >= 0].tolist() == [1, 2, 5]
    assert kept(found, 0) == [1, 2, 5]  # 5 is user 1's
    assert kept(found, 1) == [1, 2, 5]
    # User 0's second item is user 1's first: each list finds its own row.
    assert found.row[:, :3].tolist() == [[0, 1, -1], [-1, 2, 3]]


def test_in_batch_masks_items_that_the_user_met_elsewhere(dataset):
    other = dataset._replace(train=lists(0, [0, 1, 0], [[1], [2], [2]], [[1], [1], [1]]))
    found = candidates.in_batch()(other, other.train, np.array([0, 1]), np.random.default_rng(0))
    assert kept(found, 0) == [1]  # 2 is in another list of user 0's: no negative
    assert kept(found, 1) == [1, 2]


def test_a_set_is_no_longer_than_the_catalogue(dataset):
    found = drawn(dataset, candidates.in_batch(negatives=20 * ITEMS))
    assert found.item.tolist() == [list(range(ITEMS))]
    assert kept(found, 0) == list(range(ITEMS))
    # Of user 1 item 6 is a test item, so a negative here.
    assert found.row[1].tolist() == [{2: 2, 5: 3}.get(item, -1) for item in range(ITEMS)]


@pytest.mark.parametrize("negatives, power", [(0, 0.0), (6, 0.0), (6, 1.0), (6, 0.75)])
def test_log_q_is_the_log_of_the_probability_to_be_in_the_set(dataset, negatives, power):
    counts = np.array([0, 1, 2, 0, 0, 1, 0, 0]) + 1.0
    shown, more = counts / counts.sum(), counts**power / (counts**power).sum()
    found = drawn(dataset, candidates.in_batch(negatives, power=power))
    real = found.item[0] >= 0
    # Four logged items and the drawn ones, each another chance.
    wanted = np.log(1 - (1 - shown) ** 4 * (1 - more) ** negatives)[found.item[0][real]]
    np.testing.assert_allclose(found.log_q[0][real], wanted, rtol=1e-6)
    assert not found.log_q[0][~real].any()


def test_negatives_are_drawn_by_popularity(dataset):
    counts = np.array([0, 1, 2, 0, 0, 1, 0, 0]) + 1.0
    which, own, times, draws = candidates.popularity(1), {1, 2, 5}, np.zeros(ITEMS), 2000
    for seed in range(draws):
        found = drawn(dataset, which, seed=seed)
        times[[item for item in found.item[0].tolist() if item >= 0 and item not in own]] += 1
    share, others = counts / counts.sum(), [0, 3, 4, 6, 7]
    np.testing.assert_allclose(times[others] / draws, share[others], atol=4 * np.sqrt(0.1 / draws))


def test_what_reads_like_an_item_that_the_user_met_is_no_negative(dataset):
    title = np.array(["a", "b", "c", "a", "", "b", "", "c"], STRINGS)
    texts = dataset._replace(items=dataset.items._replace(text={"title": title, "genre": np.full(ITEMS, "x", STRINGS)}))
    # 5 reads like 1, 7 like 2, and 3 like 0, which nobody met.
    assert kept(drawn(texts, candidates.in_batch(200)), 0) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert kept(drawn(texts, candidates.in_batch(200, same="text")), 0) == [0, 1, 2, 3, 4, 6]
    # 1 reads like 5, which user 1 was shown; what a list holds itself stays.
    assert kept(drawn(texts, candidates.in_batch(200, same="text")), 1) == [0, 2, 3, 4, 5, 6]
    blank = texts._replace(items=texts.items._replace(text={"title": np.full(ITEMS, "", STRINGS)}))
    assert kept(drawn(blank, candidates.in_batch(200, same="text")), 0) == list(range(ITEMS))


@pytest.mark.parametrize("settings, says", [({"power": -1.0}, "power is -1.0"), ({"same": "title"}, "same is 'title'")])
def test_settings_that_mean_nothing_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        candidates.in_batch(**settings)
    with pytest.raises(UserError, match="negatives is 0; it must be at least 1"):
        candidates.popularity(0)


@pytest.mark.parametrize(
    ("exclude", "user_0"),
    [("earlier", [0, 4, 5, 6, 7]), ("train", [0, 3, 4, 5, 6, 7]), ("none", list(range(ITEMS)))],
)
def test_the_catalogue_leaves_out_earlier_items(dataset, exclude, user_0):
    found = drawn(dataset, candidates.catalogue(exclude), "test")
    assert kept(found, 0) == user_0
    assert found.row[0].tolist() == [-1, -1, -1, -1, 0, -1, -1, -1]


def test_an_item_never_logged_is_an_observed_0_only_where_the_label_is_known_everywhere(dataset):
    found = drawn(dataset, candidates.catalogue("none"))
    labels, observed = labels_of(dataset, dataset.train, found)
    assert observed["click"][0].all()
    assert labels["click"][0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert not observed["click"][1, 5]  # logged, but not observed: never a 0
    labels, observed = labels_of(dataset._replace(everywhere=frozenset()), dataset.train, found)
    assert np.flatnonzero(observed["click"][0]).tolist() == [1, 2]
    assert np.flatnonzero(observed["click"][1]).tolist() == [2]


def test_the_same_draw_comes_again(dataset):
    one, other = (drawn(dataset, candidates.uniform(5), seed=3) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("change", [{"item": ITEMS}, {"item": -2}, {"row": 4}, {"row": -2}])
def test_a_draw_outside_its_table_is_refused_before_anything_indexes_with_it(dataset, change):
    def wrong(*asked):
        found = candidates.as_logged()(*asked)
        ((name, value),) = change.items()
        broken = getattr(found, name).copy()
        broken[0, 1] = value
        return found._replace(**{name: broken})

    ((name, value),) = change.items()
    with pytest.raises(UserError, match=f"^here: {name} {value} was drawn; there are {ITEMS if name == 'item' else 4}"):
        drawn(dataset, candidates.within(wrong, "here"))


@pytest.mark.parametrize(
    "which", [candidates.as_logged(), candidates.uniform(3), candidates.in_batch(3), candidates.catalogue()]
)
def test_a_draw_within_its_table_is_handed_on_also_for_one_user_and_one_item(dataset, which):
    one = lists(0, [0], [[0]], [[1]])
    alone = dataset._replace(
        users=dataset.users._replace(id=dataset.users.id[:1]),
        items=dataset.items._replace(id=dataset.items.id[:1]),
        train=one,
        seen=(np.array([0, 1]), np.array([0]), np.array([0], np.int8)),
    )
    for made, rows in ((dataset, (0, 1)), (alone, (0, -1))):
        found = drawn(made, candidates.within(which, "here"), rows=rows)
        for a, b in zip(found, drawn(made, which, rows=rows), strict=True):
            np.testing.assert_array_equal(a, b)
    assert kept(found, 0) == [0] and kept(found, 1) == []
