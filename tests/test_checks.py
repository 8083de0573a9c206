"""Every fault of a config in one report, before any work, by every way in."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import mobjrec
from mobjrec.config import parse_text
from mobjrec.defaults import load, parse, settled
from mobjrec.errors import UserError
from mobjrec.yaml_reader import read

TINY = Path(__file__).parent / "tiny.yaml"

# The faults of every kind; behind # what the report says of the line: key and a word or two.
FAULTS = """\
seed: -1                                                       # seed: expected 0 or more
epochs: 5
epohcs: 3                                                      # epohcs: did you mean `epochs`
data:
  use: table
  pth: shop                                                    # data.pth: did you mean `path`
  time_unit: h                                                 # data.time_unit: expected "s" or "ms"
labels:
  satisfied:
    use: at_least
    of: dwell
    value: .inf                                                # labels.satisfied.value: a finite number
    known: {aftr: click}                                       # labels.satisfied.known.aftr: did you mean `after`
  long: {use: quantile, of: dwell, within: length, groups: 0}  # labels.long.groups: at least 1
tokenizer:
  use: trained
  size: 10                                                     # tokenizer.size: at least 64
  lowercase: 'yes'                                             # tokenizer.lowercase: true or false
lists:
  split: {use: by_time, valid: 0.7, test: 0.6}                 # lists.split.valid: leave a share for training
  history:
    last: -1                                                   # lists.history.last: expected 0 or more
  window: x                                                    # lists.window: a whole number
candidates: {use: uniform, negatives: 0}                       # candidates.negatives: at least 1
batch:
  lists: 0                                                     # batch.lists: expected 1 or more
  item_row: 2                                                  # batch.item_row: expected 3 or more
model:
  use: ranker
  encoder:
    use: bert
    width: 63                                                  # model.encoder.width: divisible
    heads: 4
    dropout: 3                                                 # model.encoder.dropout: below 1
    layer: 3                                                   # model.encoder.layer: did you mean `layers`
  user:
    text: "{history.title"                                     # model.user.text: is not a template
    ids: user                                                  # model.user.ids: expected a list
  item:
    text: "{title!r}"                                          # model.item.text: carries a format
    history: true                                              # model.item.history: only users have a history
  scorer:
    use: mlp
    layers: [0]                                                # model.scorer.layers: at least 1
    dropout: 1.5                                               # model.scorer.dropout: below 1
    bias: [clik]                                               # model.scorer.bias: did you mean click
  width: 0                                                     # model.width: at least 1
  layers: [4, 0]                                               # model.layers: at least 1
  dropout: -1                                                  # model.dropout: at least 0
  id_dropout: 2                                                # model.id_dropout: below 1
objectives:
  click:
    use: single
    loss: {use: huber, delta: 0}                               # objectives.click.loss.delta: above 0
    label: click
    standardise: true
    link: sigmoid                                              # objectives.click.link: no probability
  recall:
    use: recall
    k: 0                                                       # objectives.recall.k: at least 1
    softmax: 3.0                                               # objectives.recall.softmax: from 0 to 1
    temperature_rank: 0                                        # objectives.recall.temperature_rank: above 0
  other:
    use: sngle                                                 # objectives.other.use: did you mean `single`
  rating:
    use: single
    loss: softmx                                               # objectives.rating.loss.use: did you mean `softmax`
    label: rating
    lnk: sigmoid                                               # objectives.rating.lnk: did you mean `link`
weighting:
  use: static
  weights:                                                     # weighting.weights: no number for other
    click: -1
    recall: 1
    rating: 1
    othr: 1                                                    # weighting.weights.othr: did you mean `other`
weight_scale: papr                                             # weight_scale: 'unit' or 'paper'
optimizer:
  use: adamw
  learning_rate: -3                                            # optimizer.learning_rate: above 0
  warmup: 5                                                    # optimizer.warmup: below 1
  clip: 0                                                      # optimizer.clip: null for no clipping
  b1: 1                                                        # optimizer.b1: below 1
  eps: 0                                                       # optimizer.eps: above 0
  average: 2                                                   # optimizer.average: below 1
  schedule: cosin                                              # optimizer.schedule: did you mean `cosine`
evaluate:
  every: {epochs: 0}                                           # evaluate.every.epochs: a number above 0
  candidates: {use: in_batch, negatives: -1}                   # evaluate.candidates.negatives: 0 or more
  metrics:
    - ndcg@0                                                   # evaluate.metrics.0: a number from 1 up
    - acu                                                      # evaluate.metrics.1: did you mean auc
save:
  every: {steps: 3, epochs: 1}                                 # save.every: exactly one of
  keep: 0                                                      # save.keep: expected 1 or more
parallel: {map: pmapp}                                         # parallel.map: 'shard_map' or 'pmap'
non_finite: stop                                               # non_finite: 'raise' or 'skip'
"""
EXPECTED = [
    (number, *(part.strip() for part in line.rsplit("#", 1)[1].split(":", 1)))
    for number, line in enumerate(FAULTS.splitlines(), start=1)
    if "# " in line
]
OVERRIDES = ("gram_at=here", "batch.chunk_rows=0", "model.encoder.compute=float16", "sede=3")


@pytest.fixture
def never(monkeypatch):
    """Nothing is read and nothing tokenised."""

    def fail(*_, **__):
        raise AssertionError("work before the check")

    for name in ("data_of", "feed_of"):
        monkeypatch.setattr(f"mobjrec.parts.{name}", fail)


def lines_of(error: UserError) -> list[str]:
    return str(error).split("\n  ")


def holds(lines: list[str], start: str, words: str) -> bool:
    return any(line.startswith(start) and words in line for line in lines)


def test_faults_of_all_kinds_are_in_one_report_each_with_its_line(tmp_path, never):
    path = tmp_path / "faults.yaml"
    path.write_text(FAULTS)
    with pytest.raises(UserError) as caught:
        load(path, OVERRIDES)
    lines = lines_of(caught.value)
    assert len(EXPECTED) > 50
    for number, key, words in EXPECTED:
        assert holds(lines, f"{path}:{number}: {key}: ", words), (number, key, lines)
    for override, words in zip(OVERRIDES, ("'embeddings'", "1 or more", '"bfloat16"', "`seed`"), strict=True):
        assert holds(lines, f"override `{override}`: ", words), (override, lines)
    # Nothing besides is wrong but what these faults leave out.
    assert len(lines) == 1 + len(EXPECTED) + len(OVERRIDES) + 1
    assert holds(lines, f"{path}:13: labels.satisfied.known.after: ", "the key is missing")
    numbers = [int(line.split(":")[1]) for line in lines[1:] if line.startswith(str(path))]
    assert numbers == sorted(numbers)


def test_from_python_the_same_is_told(never, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        mobjrec.fit(read(FAULTS, "").value)
    lines = lines_of(caught.value)
    for _, key, words in EXPECTED:
        assert holds(lines, f"{key}: ", words), key
    with pytest.raises(UserError) as caught:
        (tmp_path / "faults.yaml").write_text(FAULTS)
        mobjrec.fit("faults.yaml", changes=OVERRIDES)
    assert len(lines_of(caught.value)) == 1 + len(EXPECTED) + len(OVERRIDES) + 1


@pytest.mark.parametrize("command", [["config"], ["train"], ["train", "--dry-run"]])
def test_every_command_tells_all_and_exits_with_2(command, tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(FAULTS)
    environment = os.environ | {"PYTHONPATH": str(Path(mobjrec.__file__).parents[1])}
    arguments = [sys.executable, "-m", "mobjrec", *command[:1], path, *command[1:]]
    found = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert found.returncode == 2 and "Traceback" not in found.stderr and not found.stdout
    for number, key, words in EXPECTED:
        assert holds(lines_of(found.stderr), f"{path}:{number}: {key}: ", words), key
    assert [file.name for file in tmp_path.iterdir()] == ["faults.yaml"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["evaluate.metrics=[]"], r"evaluate\.metrics: found a list of 0; expected at least one metric"),
        (["evaluate.select=clik/auc"], r"evaluate\.select: clik/auc is not measured; did you mean `click/auc`"),
        (
            ["evaluate.select=click/auc", "evaluate.floors={satisfaction/acu: 0.5}"],
            r"evaluate\.floors\.satisfaction/acu: satisfaction/acu is not measured; did you mean `satisfaction/auc`",
        ),
        (["evaluate.floors={click/auc: 0.5}"], r"evaluate\.floors: nothing is chosen; name the .* by evaluate\.select"),
        (["evaluate.patience=3"], r"evaluate\.patience: nothing is chosen; name the .* by evaluate\.select"),
        (
            ["evaluate.patience=3", "evaluate.select=utility:click/auc", "evaluate.every=null"],
            r"evaluate\.patience: nothing is measured while training; say how often by evaluate\.every",
        ),
        (["tokenizer=null"], "tokenizer: a template reads text, so say what makes tokens of it"),
        (["model.encoder=null"], r"model\.user\.text: user\.text is .* but nothing reads it"),
        (["model.item={}"], r"model\.item: item has nothing to read"),
        (["model.user_encoder={use: bert}"], r"\A[^\n]*model\.user_encoder: user_encoder is given beside encoder[^\n]*\Z"),
        (["model.item_encoder={use: bert, layers: 0}"], r"\A[^\n]*model\.item_encoder\.layers: layers is 0[^\n]*\Z"),
        (["model.scorer={use: transformer, heads: 3}"], r"model\.scorer\.heads: .*must divide the model's width, which is 16"),
        (["model.scorer={use: cosine, temperature: 0}"], r"model\.scorer\.temperature: temperature is 0\.0"),
        (["weighting={use: static, weights: {click: 1, recall: -1, satisfaction: 1}}"], r"weighting\.weights: .*not negative"),
        (["weighting={use: uncertainty}", "objectives.recall.softmax=0.1"], r"weighting\.use: .*recall may go below"),
        (["objectives=null", "weighting={use: static, weights: {click: 1}}"], r"objectives: found null"),
        (["weighting={use: uncertainty, start: 99}"], r"weighting\.start: start is 99\.0"),
        (
            ["objectives.variety={use: diversity, head: clik}"],
            r"objectives\.variety: head clik is of no objective with a label; did you mean `click`\?",
        ),
        (["objectives.twin={use: 'test_checks:wide'}"], r"objectives\.twin: head click is 2 wide here and 1 elsewhere"),
        (["objectives.both={use: satisfied_click, after: click}"], r"objectives\.both\.after: after is click, the same"),
        (["objectives.none={use: 'test_checks:nothing'}"], r"objectives\.none\.use: .*makes a str; expected an? Objective"),
        (["optimizer.groups={encoder/*: {factor: -1}}"], r"optimizer\.groups: groups has the factors"),
        (["optimizer.groups={encodr/*: {factor: 1}}"], r"optimizer\.groups: groups: encodr/\* matches no trained parameter"),
        (["model.item.ids=[item, item]"], r"model\.item\.ids: item\.ids names 'item' twice"),
        (["lists.split={use: last_out, valid: 1, test: -1}"], r"lists\.split\.test: test is -1"),
        (["evaluate.metrics=[ndcg@99999999999]"], r"evaluate\.metrics\.0: ndcg@99999999999 is no metric"),
    ],
)  # fmt: skip
def test_what_cannot_be_together_is_refused_before_data_are_read(changes, said, never):
    with pytest.raises(UserError, match=said):
        load(TINY, changes)


@pytest.mark.parametrize("key", ["objectives", "model", "weighting", "optimizer", "lists", "batch", "evaluate"])
@pytest.mark.parametrize("value", [3, [], {}, {"use": 3}, {"x": {"use": "single"}}, None])
def test_a_wrong_block_does_not_keep_others_from_being_checked(key, value, never):
    data = read(TINY.read_text(), "").value
    data["tokenizer"]["size"], data[key] = 3, value
    with pytest.raises(UserError, match=r"tokenizer\.size: size is 3") as caught:
        parse(data)
    assert f"  {key}" in str(caught.value) or key == "evaluate"


@pytest.mark.parametrize("setting", ["encoder", "scorer"])
def test_a_piece_that_makes_something_else_is_named(setting, never):
    with pytest.raises(UserError, match=rf"model\.{setting}: it makes a str; expected a function that makes a module"):
        load(TINY, [f"model.{setting}={{use: 'test_checks:nothing'}}"])


def test_a_corpus_that_cannot_make_itself_is_refused_in_all_its_settings(never):
    with pytest.raises(UserError) as caught:
        load(TINY, ["data.conflict=3", "data.list_size=0", "data.topics=1", "batch.lists=0"])
    keys = [line.split("`: ")[1].split(":")[0] for line in lines_of(caught.value)[1:]]
    assert sorted(keys) == ["batch.lists", "data.conflict", "data.list_size", "data.topics"]
    with pytest.raises(UserError, match=r"data\.list_size: .*shows 99 different items, but 48 of 48"):
        load(TINY, ["data.list_size=99"])


def wide():
    from mobjrec.losses import squared
    from mobjrec.objectives import single

    return single(squared, "satisfaction")._replace(heads={"click": 2})


def nothing():
    return "nothing"


def test_a_complaint_that_follows_from_a_wrong_key_is_not_told():
    # A cut of k / 2 = 0, a head that a refused objective would have, a missing scorer, a label that no objective reads.
    changes = ["objectives.recall={use: recall, label: other, k: 0}", "model.scorer={use: mlp, bias: [other]}"]
    changes += ["evaluate.select=recall:other/auc", "objectives.click.lss=softmax"]
    with pytest.raises(UserError) as caught:
        load(TINY, changes)
    keys = [line.split("`: ")[1].split(":")[0] for line in lines_of(caught.value)[1:]]
    assert sorted(keys) == ["objectives.click.lss", "objectives.recall.k"]


def test_an_encoder_under_a_misspelt_name_is_not_missed_too():
    data = read(TINY.read_text(), "").value
    data["model"]["encodr"] = data["model"].pop("encoder")
    with pytest.raises(UserError, match=r"\Amodel\.encodr: ranker has no such setting; did you mean `encoder`\?\Z"):
        parse(data)


def test_a_good_config_compiles_nothing_and_is_checked_once(monkeypatch):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    for changes in ([], ["weighting={use: uncertainty}", "optimizer.groups={encoder/*: {factor: 0.5}}"]):
        whole = load(TINY, changes)
    assert not compiled
    monkeypatch.setattr("mobjrec.defaults.check", None)
    assert settled(whole) is whole
    with pytest.raises(TypeError):
        settled(parse_text(Path(TINY).read_text()))
