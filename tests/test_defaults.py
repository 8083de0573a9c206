"""What a dump says in place of null and "": the same run, with the values in force."""

from pathlib import Path

import pytest

from mobjrec import shipped
from mobjrec.config import dump, load, parse_text
from mobjrec.defaults import settled
from mobjrec.errors import UserError

TINY = Path(__file__).parent / "tiny.yaml"
IDS = [
    "tokenizer=null",
    "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}",
]


@pytest.mark.parametrize("name", shipped.names())
def test_a_settled_config_loads_and_settles_to_itself(name, monkeypatch, tmp_path):
    # Without any weights at hand: a config must be readable on a bare machine.
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path))
    whole = settled(load(shipped.config(name)))
    again = parse_text(dump(whole))
    assert again == whole and settled(again) == whole


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ([], "embeddings"),
        (["model.encoder.train=none"], "parameters"),
        (["model.encoder.train={last: 1}"], "embeddings"),
        (IDS, "parameters"),
        (["gram_at=parameters"], "parameters"),
        (["weighting={use: equal}"], None),
    ],
    ids=["trained", "frozen", "last", "ids", "given", "not read"],
)
def test_gradients_are_compared_where_a_text_encoder_trains(changes, wanted):
    assert settled(load(TINY, changes)).gram_at == wanted


def test_what_follows_from_other_keys_is_written_out():
    whole = settled(load(TINY, ["lists.history.of=''", "lists.window=3"]))
    assert whole.lists.history.of == "click"
    assert whole.lists.eval_window == 3
    assert whole.evaluate.candidates == whole.candidates
    assert whole.objectives["recall"].settings["temperature_cut"] == 1.5
    assert whole.model.settings["encoder"]["feed_forward"] == 64


def test_what_is_given_stays():
    changes = ["lists.history.of=satisfaction", "lists.eval_window=0", "evaluate.candidates={use: catalogue}"]
    whole = settled(load(TINY, changes))
    assert (whole.lists.history.of, whole.lists.eval_window) == ("satisfaction", 0)
    assert whole.evaluate.candidates.use == "catalogue"


def test_what_cannot_be_built_is_named_with_its_line():
    with pytest.raises(UserError, match=r"objectives\.recall\.softmax: softmax is 2\.0"):
        settled(load(TINY, ["objectives.recall.softmax=2.0"]))
