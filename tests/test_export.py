"""A run as a folder that opens without mobjrec, and says what the run says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobjrec import catalogue, export, inference
from mobjrec.config import load
from mobjrec.errors import UserError
from mobjrec.parts import assemble

TINY = Path(__file__).parent / "tiny.yaml"

# What somebody writes who has the folder and jax: the import of mobjrec is blocked.
ELSEWHERE = """
import json, sys
sys.modules["mobjrec"] = None
sys.path.insert(0, sys.argv[1])
import numpy as np, load

told = json.loads(sys.argv[2])
ids, matrix = load.catalogue()
number = load.SCHEMA["columns"]["user"]["ids"]["user"]["values"][told["user"]]
text = load.function("encode_users")(tokens=load.tokens("user", [told["history"]]))
score = load.function("score")
found = score(text=text, ids=np.array([[number]], np.int32), items=matrix)
items = load.tokens("item", told["texts"])
vectors = load.function("encode_items")(tokens=items)
numbers = [[load.SCHEMA["columns"]["item"]["ids"]["item"]["values"].get(i, 0)] for i in ids[: len(items)]]
np.savez(
    sys.argv[3], text=text, vectors=vectors, matrix=matrix, utility=load.utility(found, told["prefer"]),
    items=load.function("items")(text=vectors, ids=np.array(numbers, np.int32)),
    two=score(text=np.repeat(text, 2, 0), ids=np.zeros((2, 1), np.int32), items=matrix[:5])["click"], **found,
)
assert not [name for name in sys.modules if name.startswith(("mobjrec.", "flax", "safetensors"))]
"""


@pytest.fixture(scope="module")
def folder(tiny_trained, tmp_path_factory):
    made = tmp_path_factory.mktemp("export") / "tiny"
    export.write(tiny_trained, made)
    return made


def known(run, user):
    """What the run has of a user's history, newest first, as its template says it."""
    parts = run.parts
    row = run.rows["user"][user]
    begin, stop = parts.dataset.whole[row : row + 2]
    liked = parts.dataset.history[begin:stop][::-1][: parts.config.lists.history.last]
    return ["", *parts.dataset.items.text["title"][liked].tolist()]


def test_the_folder_says_elsewhere_what_the_run_says_here(tiny_trained, folder, tmp_path):
    run = tiny_trained
    table, prefer = run.parts.dataset.items, {"click": 0.2, "satisfaction": 0.8}
    template = json.loads((folder / "schema.json").read_text())["texts"]["item"]["text"]
    texts = [template.format(**{name: str(table.text[name][row]) for name in table.text}) for row in range(7)]
    told = {"user": "u3", "history": known(run, "u3"), "texts": texts, "prefer": prefer}
    out = tmp_path / "found.npz"
    subprocess.run([sys.executable, "-c", ELSEWHERE, folder, json.dumps(told), out], check=True, cwd=tmp_path)
    found = np.load(out)

    everything = run.rank(user="u3", prefer=prefer, top=len(table.id), again=True)
    order = [run.rows["item"][one["item"]] for one in everything]
    for name in (*run.parts.objectives, "utility"):
        np.testing.assert_allclose(found[name][0][order], [one[name] for one in everything], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["matrix"], np.asarray(run.items.matrix))
    np.testing.assert_allclose(found["items"], run.encode_items(table.id[:7].tolist()), rtol=1e-5, atol=1e-5)
    assert found["text"].shape == found["vectors"][:1].shape and np.abs(found["vectors"]).max() > 0
    # Two users who are not known by id, but by the same text: one score each, the same.
    np.testing.assert_array_equal(*found["two"])
    assert found["two"].shape == (2, 5)


def test_schema_says_inputs_outputs_and_how_columns_are_numbered(tiny_trained, folder):
    schema = json.loads((folder / "schema.json").read_text())
    assert list(schema["functions"]) == ["encode_users", "encode_items", "items", "score"]
    assert schema["functions"]["score"]["inputs"] == {
        "text": {"shape": ["b", 16], "dtype": "float32"},
        "ids": {"shape": ["b", 1], "dtype": "int32"},
        "items": {"shape": ["l", 16], "dtype": "float32"},
    }
    assert schema["functions"]["score"]["outputs"]["recall"] == {"shape": ["b", "l"], "dtype": "float32"}
    assert schema["platforms"] == ["cpu", "cuda", "tpu"] and schema["objectives"] == list(tiny_trained.parts.objectives)
    assert schema["utility"] == {name: list(pair) for name, pair in tiny_trained.scale.items()}
    feed = tiny_trained.parts.feed
    numbers = schema["columns"]["user"]["ids"]["user"]["values"]
    assert all(feed.user_ids[tiny_trained.rows["user"][name], 0] == number for name, number in numbers.items())
    assert len(numbers) == np.count_nonzero(feed.user_ids)


def test_history_as_vectors_and_a_preference_are_inputs_of_the_score(tiny_trained, tmp_path):
    changes = ["model.encoder=null", "model.user={ids: [user], history: true}", "model.item={ids: [item]}"]
    changes += ["preference={use: dirichlet}", "weighting={use: preferred}"]
    told = {"use": "conditioned", "of": {"use": "dot"}}
    parts = assemble(load(TINY, [*changes, f"model.scorer={json.dumps(told)}"]), tmp_path)
    state = parts.first_state()
    matrix = inference.item_matrix(parts.functions, state.params, parts.feed)
    run = tiny_trained._replace(parts=parts, params=state.params, memory=state.memory)
    run = run._replace(items=run.items._replace(matrix=matrix))
    found = export.functions(run)
    assert list(found) == ["items", "score"]
    score = found["score"]
    assert {name: shape for name, (shape, _) in score.inputs.items()} == {
        "ids": ("b", 1), "history": ("b", 5, 16), "there": ("b", 5), "items": ("l", 16), "preference": (3,)
    }  # fmt: skip
    exported, sizes = export.traced("score", score, export.flat(score.weights))
    assert sizes == {}
    wish, history = np.array([0.2, 0.3, 0.5], np.float32), np.array([[4, 9, 2, -1, -1], [7, -1, -1, -1, -1]])
    users = inference.Users(None, np.array([[3], [0]], np.int32), np.zeros((2, 0), np.float32), history)
    items, context = np.arange(48, dtype=np.int32)[None], catalogue.unknown(parts, 2, 48)
    wanted = parts.functions.predict(state.params, state.memory, users, matrix, items, *context, wish)
    given = {"ids": users.ids, "history": matrix[np.maximum(history, 0)], "there": history >= 0, "items": matrix}
    values = exported.call(export.flat(score.weights), given | {"preference": wish})
    other = exported.call(export.flat(score.weights), given | {"preference": wish[::-1].copy()})
    for name, one in wanted.items():
        np.testing.assert_allclose(values[name], one, rtol=1e-5, atol=1e-5)
        assert np.abs(np.asarray(other[name]) - one).max() > 1e-6


def test_a_folder_in_use_is_left_alone_and_one_that_fails_leaves_nothing(tiny_trained, tmp_path, monkeypatch):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="used is there and not empty; name a new folder"):
        export.write(tiny_trained, tmp_path / "used")
    with pytest.raises(UserError, match="cannot be written"):
        export.write(tiny_trained, tmp_path / "used" / "mine.txt" / "below")

    def fails(*given):
        raise UserError("no")

    monkeypatch.setattr(export, "functions", fails)
    with pytest.raises(UserError):
        export.write(tiny_trained, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_code_that_counts_gets_fixed_sizes_and_what_cannot_be_traced_is_told():
    counted = export.Function(lambda tree, given: given["x"] * len(given["x"]), {}, {"x": (("n", 2), "float32")})
    exported, sizes = export.traced("counted", counted, {})
    assert sizes == {"n": 32} and exported.in_avals[0].shape == (32, 2)
    named = counted._replace(call=lambda tree, given: given["x"] * given["x"].shape[0])
    exported, sizes = export.traced("named", named, {})
    assert sizes == {} and str(exported.in_avals[0].shape[0]) == "n"
    broken = counted._replace(call=lambda tree, given: given["x"] @ given["x"])
    with pytest.raises(UserError, match="broken cannot be exported: "):
        export.traced("broken", broken, {})
