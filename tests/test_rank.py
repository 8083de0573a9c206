from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mobjrec
from mobjrec import evaluate, rank, train
from mobjrec.config import load, parse
from mobjrec.errors import RunFolderError, UserError
from mobjrec.parts import assemble
from mobjrec.types import Input

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def text_run(cache, tmp_path_factory):
    """A model that reads histories as text."""
    folder = tmp_path_factory.mktemp("runs") / "text"
    train.run(load(TINY), folder, cache, quiet=True)
    return mobjrec.load(folder, cache)


@pytest.fixture(scope="module")
def vector_run(cache, tmp_path_factory):
    """A model that reads histories as item vectors, with a frozen encoder."""
    folder = tmp_path_factory.mktemp("runs") / "vectors"
    changes = ["model.user={history: true}", "model.encoder.train=none", "steps=4"]
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
        ({"user": "u1", "prefer": {"clicks": 1}}, "for click, recall, satisfaction"),
        ({"user": "u1", "prefer": {"click": -1}}, "from 0 up"),
        ({"user": "u1", "prefer": {"click": float("nan")}}, "from 0 up"),
    ],
)
def test_a_wrong_request_is_one_sentence(trained, asked, says):
    with pytest.raises(UserError, match=says):
        trained.rank(**asked)


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
    table = rank.told_items(shop, written(kind, tmp_path))
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
            r"has no column code, .*tags.*; it has item, name\. Read are the id code, and",
        ),
        (
            [{"code": "a", "title": "pot", "year": 1, "tags": "", "price": 1}],
            r"no column name; .*run's config names them",
        ),
        ([NEW[0], "b"], r"row 2 of the list is 'b'; expected a dict"),
        ([NEW[0], {**NEW[1], "code": 7}], r"the list of dicts, column code: .*; write one kind of value in all rows"),
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
    trained = rank.Trained(Path("run"), parts, {}, {}, {}, 0, None)
    with pytest.raises(UserError, match="knows an item by its id alone"):
        trained.encode_items(NEW)
