from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mobjrec
from mobjrec import evaluate, inference, rank, told, train
from mobjrec.config import load, parse
from mobjrec.data.batching import user_sequences
from mobjrec.data.columns import outside
from mobjrec.data.corpus import table_at
from mobjrec.data.tokens import Ragged, ragged_at
from mobjrec.errors import RunFolderError, UserError
from mobjrec.parts import assemble
from mobjrec.types import Input

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def cache(tiny_cache) -> Path:
    return tiny_cache


@pytest.fixture(scope="module")
def text_run(tiny_trained):
    """A model that reads histories as text."""
    return tiny_trained


@pytest.fixture(scope="module")
def vector_run(cache, tmp_path_factory):
    """A model that reads histories as item vectors, with a frozen encoder."""
    folder = tmp_path_factory.mktemp("runs") / "vectors"
    changes = ["model.user={history: true}", "model.encoder.train=none", "weighting={use: equal}", "steps=4"]
    train.run(load(TINY, changes), folder, cache, quiet=True)
    return mobjrec.load(folder, cache)


@pytest.fixture(params=["text_run", "vector_run"])
def trained(request):
    return request.getfixturevalue(request.param)


def test_the_list_is_ordered_by_utility_and_holds_a_number_per_objective(trained):
    rows = trained.rank(user="u3", top=7)
    assert [row["rank"] for row in rows] == list(range(1, 8))
    assert all(a["utility"] >= b["utility"] for a, b in zip(rows, rows[1:], strict=False))
    assert set(rows[0]) == {"rank", "item", "text", "utility", "click", "recall", "satisfaction"}
    assert len({row["item"] for row in rows}) == 7


def test_a_preference_for_one_objective_ranks_by_it(trained):
    rows = trained.rank(user="u3", top=72, again=True, prefer={"satisfaction": 1})
    assert [row["satisfaction"] for row in rows] == sorted((row["satisfaction"] for row in rows), reverse=True)


def test_scores_of_pairs_are_those_of_the_ranking(trained):
    rows = trained.rank(user="u5", top=5)
    scores = trained.score(["u5"] * 5, [row["item"] for row in rows])
    for name in ("click", "recall", "satisfaction"):
        np.testing.assert_allclose(scores[name], [row[name] for row in rows], atol=1e-5)


def test_pairs_are_scored_block_by_block_and_each_user_encoded_once(trained, monkeypatch):
    users, items = ["u5", "u3", "u5", "u5", "u3", "u7"], ["i1", "i1", "i2", "i9", "i4", "i0"]
    each = [trained.score([user], [item]) for user, item in zip(users, items, strict=True)]
    asked = []
    known = rank.Trained._known_users
    monkeypatch.setattr(rank.Trained, "_known_users", lambda self, who: asked.append(len(who)) or known(self, who))
    monkeypatch.setattr(rank, "PAIRS", 4)
    for name, values in trained.score(users, items).items():
        np.testing.assert_allclose(values, [one[name][0] for one in each], atol=1e-5)
    assert asked == [3]
    np.testing.assert_allclose(
        trained.encode_users(["u3", "u5", "u3"]), trained.encode_users(["u5", "u3"])[[1, 0, 1]], atol=1e-6
    )


def test_nothing_asked_is_nothing_found(trained):
    found = trained.score([], [])
    assert [*found] == ["click", "recall", "satisfaction"] and all(values.shape == (0,) for values in found.values())
    assert trained.encode_users([]).shape == trained.encode_items([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("users", "items", "says"),
    [
        (["u1", "u2"], ["i1"], "there are 2 users and 1 items; score takes pairs"),
        ("u1", ["i1", "i2"], r"users is the text 'u1'; give a list of ids, \['u1'\]"),
        ([1], ["i1"], "no user 1 in this corpus"),
    ],
)
def test_pairs_that_are_none_are_one_sentence(trained, users, items, says):
    with pytest.raises(UserError, match=says):
        trained.score(users, items)


def test_scores_are_those_of_the_evaluation(trained):
    parts = trained.parts
    lists, dataset = parts.dataset.test, parts.dataset
    block = next(evaluate.blocks(parts, trained.params, trained.memory, lists, parts.eval_candidates))
    row = int(np.argmax(lists.history[:, 1] - lists.history[:, 0]))
    user, (begin, stop) = int(lists.user[row]), lists.history[row]
    assert stop > begin
    # What is known of the user is cut back to what it was when this list was shown.
    whole = dataset.whole.copy()
    whole[user : user + 2] = begin, stop
    then = trained._replace(parts=parts._replace(dataset=dataset._replace(whole=whole)))
    items = [str(dataset.items.id[i]) for i in block.drawn.item[row]]
    scores = then.score([str(dataset.users.id[user])] * len(items), items)
    for name in ("click", "recall", "satisfaction"):
        np.testing.assert_allclose(scores[name], block.predictions[name][row], atol=1e-5)


def test_someone_never_seen_is_ranked_by_words_or_by_an_item(trained):
    by_words = trained.rank(text="galaxy telescope orbit", top=72)
    others = trained.rank(text="oven sauce recipe", top=72)
    assert [row["item"] for row in by_words] != [row["item"] for row in others]
    assert [row["item"] for row in trained.rank(item="i4", top=3)] != []


def test_new_items_are_ranked_through_their_text(trained, tmp_path):
    known = trained.parts.dataset.items
    (tmp_path / "new.csv").write_text(
        "item,title,description\n"
        f"copy,{known.text['title'][7]},{known.text['description'][7]}\n"
        "other,oven sauce recipe butter,sloppy simple with the kitchen pasta\n"
    )
    rows = trained.rank(user="u1", items=tmp_path / "new.csv", top=9)
    assert {row["item"] for row in rows} == {"copy", "other"}
    assert all(np.isfinite(row["utility"]) for row in rows)


def test_a_copy_of_an_item_has_its_vector_but_for_the_id(trained, tmp_path):
    known = trained.parts.dataset.items
    (tmp_path / "new.csv").write_text(
        f"item,title,description\ncopy,{known.text['title'][7]},{known.text['description'][7]}\n"
    )
    table = trained.params["item"]["join"]["ids"]["item"]["rows"]
    own = np.asarray(table)[trained.parts.feed.item_ids[7, 0]]
    copy = trained.encode_items(tmp_path / "new.csv")[0]
    np.testing.assert_allclose(copy + own, trained.encode_items([str(known.id[7])])[0], atol=1e-5)


def known_rows(trained, ids):
    """Items of the corpus as someone would write them."""
    texts = trained.parts.dataset.items.text
    rows = [trained.rows["item"][name] for name in ids]
    return [
        {"item": name, "title": str(texts["title"][row]), "description": str(texts["description"][row])}
        for name, row in zip(ids, rows, strict=True)
    ]


@pytest.mark.parametrize("form", ["ids", "dicts", "frame", "file", "ids alone in a file", "table"])
def test_known_items_are_ranked_as_in_the_catalogue(trained, form, tmp_path):
    ids = [f"i{n}" for n in range(2, 30, 3)]
    whole = {row["item"]: row for row in trained.rank("u3", top=48)}
    asked = pd.DataFrame(known_rows(trained, ids))
    asked.to_csv(tmp_path / "file.csv", index=False)
    asked[["item"]].to_csv(tmp_path / "ids.csv", index=False)
    given = {"ids": ids, "dicts": known_rows(trained, ids), "frame": asked, "file": tmp_path / "file.csv"}
    given |= {
        "ids alone in a file": tmp_path / "ids.csv",
        "table": table_at(trained.parts.dataset.items, np.arange(2, 30, 3)),
    }
    found = trained.rank("u3", items=given[form], top=48)
    # What the user liked is left out here as there.
    assert [row["item"] for row in found] == [name for name in whole if name in ids]
    assert len(found) < len(ids) == len(trained.rank("u3", items=given[form], top=48, again=True))
    for row in found:
        expected = whole[row["item"]]
        assert row["text"] == expected["text"]
        np.testing.assert_allclose(
            [row[name] for name in ("utility", "click", "satisfaction")],
            [expected[name] for name in ("utility", "click", "satisfaction")],
            atol=1e-4,
        )


def test_known_items_among_new_ones_keep_what_they_are(trained):
    known = known_rows(trained, ["i5", "i9"])
    rows = [known[0], {**known[0], "item": "new"}, known[1]]
    vectors = trained.encode_items(rows)
    np.testing.assert_array_equal(vectors[[0, 2]], trained.encode_items(["i5", "i9"]))
    # The copy is not known, so it lacks what training knows of the id.
    assert np.abs(vectors[1] - vectors[0]).max() > 1e-4
    np.testing.assert_allclose(vectors[1], trained.encode_items([rows[1]])[0], atol=1e-5)
    assert {row["item"] for row in trained.rank("u1", items=rows, again=True)} == {"i5", "new", "i9"}
    twice = trained.rank("u1", items=["i5", "i9", "i5"], again=True)
    assert sorted(row["item"] for row in twice) == ["i5", "i9"]
    for items, says in (([], "items is empty"), (["i5", "x"], "no item 'x'")):
        with pytest.raises(UserError, match=says):
            trained.rank("u1", items=items)


def test_vectors_are_what_the_scorer_reads(trained):
    users, items = trained.encode_users(["u0", "u1"]), trained.encode_items(["i0", "i1", "i2"])
    assert users.shape == (2, 16)
    assert items.shape == (3, 16)
    assert np.abs(users[0] - users[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"user": "nobody"}, "no user 'nobody' in this corpus"),
        ({"item": "x"}, "no item 'x'"),
        ({}, "one of user, text or item, not none"),
        ({"user": "u1", "item": "i1"}, "not user and item"),
        ({"user": "u1", "prefer": {"clicks": 1}}, "no objective clicks; did you mean `click`"),
        ({"user": "u1", "prefer": {"dwell": 1}}, "objectives are click, recall, satisfaction"),
        ({"user": "u1", "prefer": {"click": -1}}, "from 0 up"),
        ({"user": "u1", "prefer": {"click": float("nan")}}, "from 0 up"),
        ({"user": "u1", "prefer": {"click": float("inf")}}, "finite numbers from 0 up"),
        ({"user": "u1", "top": -1}, "top is -1; it must be a whole number of at least 1"),
        ({"user": "u1", "top": 2.5}, "top is 2.5; it must be a whole number"),
        ({"user": "u1", "top": None}, "top is None; it must be a whole number"),
        ({"user": "u1", "prefer": {"click": "a"}}, "prefer is .*; give {objective: number} for click, recall"),
        ({"user": "u1", "prefer": "click"}, "prefer is 'click'; give {objective: number}"),
        ({"user": ["u1"]}, "no user"),
        ({"text": ""}, "text 1 is empty"),
        ({"text": ["orbit", " "]}, "text 2 is empty"),
        ({"text": [None]}, "text 1 is None; expected words"),
        ({"text": 1}, "text 1 is 1; expected words"),
        ({"text": "\ud83d"}, "text 1 holds half a character"),
        ({"text": []}, "text is empty"),
    ],
)
def test_a_wrong_request_is_one_sentence(trained, asked, says):
    with pytest.raises(UserError, match=says):
        trained.rank(**asked)


def test_words_that_are_all_unknown_are_ranked_with_one_note(text_run, capsys):
    assert text_run.rank(text="\u4e00 \u4e8c", top=2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("mobjrec: note: no word of the text is known to the tokeniser")
    assert text_run.rank(text="orbit \u4e8c", top=2) and not capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no config\.yaml"):
        mobjrec.load(tmp_path)


SHOP = {
    "steps": 1,
    "data": {
        "use": "table",
        "columns": {"user": "buyer", "item": "sku", "time": "", "feedback": ["click"]},
        "item_columns": {"id": "code", "several": ["tags"]},
        "items": "items.csv",
        "separator": ";",
    },
    "tokenizer": {"use": "trained", "size": 80},
    "lists": {"split": {"use": "random", "valid": 0.2, "test": 0.2}, "history": {"of": "click", "last": 2}},
    "candidates": {"use": "as_logged"},
    "batch": {"lists": 4, "item_row": 16},
    "model": {
        "use": "ranker",
        "encoder": {"use": "bert", "layers": 1, "width": 8, "heads": 2},
        "user": {"ids": ["user"]},
        "item": {"text": "{name} {year}", "ids": ["item", "tags"], "numbers": ["price"]},
        "width": 8,
        "scorer": {"use": "dot"},
    },
    "objectives": {"click": {"use": "single", "loss": "softmax", "label": "click"}},
    "weighting": {"use": "equal"},
    "optimizer": {"use": "adamw"},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The parts of a config that names its own columns; nothing is trained."""
    folder = tmp_path_factory.mktemp("shop")
    events = [f"u{n % 5},i{n % 7},{n % 2}" for n in range(40)]
    (folder / "events.csv").write_text("\n".join(["buyer,sku,click", *events]))
    items = [f"i{n},kettle {n},{1990 + n},{'red;new' if n % 2 else 'blue'},{n}.5,x" for n in range(7)]
    (folder / "items.csv").write_text("\n".join(["code,name,year,tags,price,unread", *items]))
    config = parse({**SHOP, "data": {**SHOP["data"], "path": str(folder)}})
    return assemble(config, tmp_path_factory.mktemp("cache"))


NEW = [
    {"code": "a", "name": "pot", "year": 2001, "tags": "red;new", "price": 2.5, "stock": 3},
    {"code": "b", "name": "pan", "year": 2002, "tags": "", "price": None, "stock": 4},
]


def written(kind, folder):
    frame = pd.DataFrame(NEW)
    if kind == "csv":
        frame.to_csv(folder / "new.csv", index=False)
    elif kind == "jsonl":
        frame.to_json(folder / "new.jsonl", orient="records", lines=True)
    elif kind == "parquet":
        frame.to_parquet(folder / "new.parquet")
    return {"list": NEW, "frame": frame, "arrow": pa.Table.from_pylist(NEW)}.get(kind, folder / f"new.{kind}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "list", "frame", "arrow"])
def test_items_are_told_in_the_runs_own_columns(shop, kind, tmp_path, recwarn):
    table, row = rank.told_items(shop, written(kind, tmp_path))
    assert row.tolist() == [-1, -1]
    assert table.id.tolist() == ["a", "b"]
    tags = table.categories["tags"]
    assert [sorted(tags.names[tags.value[a:b]].tolist()) for a, b in zip(tags.start, tags.start[1:], strict=False)] == [
        ["new", "red"],
        [],
    ]
    assert table.text["name"].tolist() == ["pot", "pan"]
    np.testing.assert_array_equal(table.numbers["year"], [2001, 2002])
    np.testing.assert_array_equal(table.numbers["price"], np.float32([2.5, np.nan]))
    assert "stock" not in table.numbers and not [one for one in recwarn if "not used" in str(one.message)]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            [{"item": "a", "name": "pot"}],
            r"has no column code, year; it has item, name\. Read are the id code, and name, tags, year, price",
        ),
        (
            [{"code": "a", "title": "pot", "year": 1, "tags": "", "price": 1}],
            r"no column name; .*run's config names them",
        ),
        ([NEW[0], "b"], r"row 2 is 'b'; expected a dict"),
        ([NEW[0], {**NEW[1], "code": 7}], r"the list of dicts, row 2, column code: found 7 .*; write one kind"),
        ([NEW[0], {**NEW[1], "name": "\ud83d"}], r"the list of dicts, row 2, column name: found '.ud83d' "),
        ([NEW[0], NEW[0]], r"column code: rows 1 and 2 have the same id 'a'"),
        ([], "the list of dicts has no column code"),
        ("none.csv", "none.csv is not a file"),
        (7, "not a table; expected a file name, a frame, an Arrow table, or a list of dicts"),
    ],
)
def test_items_that_cannot_be_read_are_one_sentence(shop, source, says):
    with pytest.raises(UserError, match=says):
        rank.told_items(shop, source)


def test_a_model_that_knows_items_by_id_alone_cannot_rank_new_ones(shop):
    parts = shop._replace(inputs={**shop.inputs, "item": Input(ids=("item",))})
    trained = rank.Trained(Path("run"), parts, {}, {}, {}, 0, None, {"user": {}, "item": {}})
    with pytest.raises(UserError, match="knows an item by its id alone"):
        trained.encode_items(NEW)


def test_new_items_need_an_id_and_what_the_template_names(shop):
    short = [{"code": "a", "name": "pot", "year": 2001}, {"code": "b", "name": "pan", "year": 2002}]
    with pytest.warns(UserWarning, match="no column tags, price; what it would say is not known"):
        table, _ = rank.told_items(shop, short)
    assert table.id.tolist() == ["a", "b"] and table.text["name"].tolist() == ["pot", "pan"]
    assert not table.categories.keys() & {"tags"} and not table.numbers.keys() & {"price"}
    ids, features = outside(table, shop.corpus.items, shop.inputs["item"], "item", np.ones(7, bool))
    assert not ids.any() and not features.any()
    nameless = [{name: value for name, value in row.items() if name != "code"} for row in NEW]
    with pytest.raises(UserError, match="has no column code"):
        rank.told_items(shop, nameless)
    # Vectors have no use for an id.
    table, row = rank.told_items(shop, nameless, {"1": 0, "2": 1}, named=False)
    assert (
        table.id.tolist() == ["1", "2"] and row.tolist() == [-1, -1] and table.text["name"].tolist() == ["pot", "pan"]
    )


def test_new_items_of_which_nothing_is_read_are_refused(shop):
    parts = shop._replace(inputs={**shop.inputs, "item": Input(ids=("item", "tags"), numbers=("price",))})
    with pytest.raises(UserError, match=r"has no column .*tags.*; it has code, name"):
        rank.told_items(parts, [{"code": "a", "name": "pot"}])


def test_an_item_says_nothing_to_a_model_that_reads_no_history(shop):
    rows = {"user": {}, "item": {"i1": 1}}
    trained = rank.Trained(Path("run"), shop, {}, {}, {}, 0, None, rows)
    with pytest.raises(
        UserError, match="reads nothing of what a user liked, so it cannot rank for an item; use --user"
    ):
        trained.rank(item="i1")
    with pytest.raises(UserError, match="reads no text of users or items"):
        trained.rank(text="kettle")


def reader(folder, cache, text):
    """The parts of the shop with a text of users, whose fifth one has no city."""
    (folder / "users.csv").write_text("buyer,city,age\nu0,Lyon,3\nu1,Graz,4\nu2,Porto,5\nu3,Lyon,6\nu4,,\n")
    data = {**SHOP["data"], "path": str(folder), "users": "users.csv"}
    return assemble(parse({**SHOP, "data": data, "model": {**SHOP["model"], "user": {"text": text}}}), cache)


@pytest.fixture(scope="module")
def folder(shop):
    return Path(shop.config.data.settings["path"])


def test_what_is_told_has_the_form_that_training_saw(shop, folder):
    parts = reader(folder, shop.cache, "From {city}. Bought: {history.name} of {history.year}. ")
    feed = parts.feed
    # Told as items: as a user without a city who liked them.
    liked = np.array([3, 5])
    found = told.someone(parts, liked, None)
    assert found.token.tolist() == user_sequences(feed, np.array([4]), np.array([[0, 2]]), liked[::-1]).token.tolist()
    # Told in words: each text in the place of the first column, the others empty.
    found = told.someone(parts, np.zeros(0, int), ["kettle 3", "kettle 5"])
    words = "From . Bought: ", "kettle 3 of . ", "kettle 5 of . "
    ids = [token for one in parts.tokenizer.encode_batch(list(words)) for token in one]
    assert found.token.tolist() == [feed.cls, *ids, feed.sep] and found.start.tolist() == [0, len(ids) + 2]
    short = parts._replace(feed=feed._replace(user_row=9))
    assert told.someone(short, liked, None).token.tolist()[1:-1] == told.someone(parts, liked, None).token.tolist()[1:8]


def test_without_a_history_words_are_told_as_the_one_column_of_the_profile(shop, folder):
    parts = reader(folder, shop.cache, "From {city}.")
    (ids,) = parts.tokenizer.encode_batch(["From Lyon."])
    found = told.someone(parts, np.zeros(0, int), ["Lyon"])
    assert found.token.tolist() == [parts.feed.cls, *ids, parts.feed.sep]
    several = parts._replace(inputs={**parts.inputs, "user": Input(text="From {city}, {age}.")})
    with pytest.raises(UserError, match="reads city, age of a user and no history"):
        told.someone(several, np.zeros(0, int), ["Lyon"])


def test_one_users_text_is_encoded_in_a_small_block():
    length = 16
    texts = Ragged(np.arange(0, 41, 10), np.arange(40, dtype=np.int32))
    few = next(inference.blocks(lambda rows: ragged_at(texts, rows), 1, length))
    assert [part.tokens.shape for part in few.parts] == [(inference.FEW // length, length)]
    many = next(inference.blocks(lambda rows: ragged_at(texts, rows % 4), inference.FEW // length + 1, length))
    assert [part.tokens.shape for part in many.parts] == [(inference.TOKENS // length, length)]
