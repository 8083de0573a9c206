import copy
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from mobjrec.config import Block, Config, dump, load, parse, plain
from mobjrec.errors import UserError
from mobjrec.yaml_reader import read
from mobjrec.yaml_writer import written

TEXT = """\
seed: 3
epochs: 5
data: {use: table, path: my_shop, events: events.parquet}
labels:
  satisfied: {use: at_least, of: play_share, value: 0.8, known: {after: click}}
lists: {split: {use: by_time, valid: 0.1}, history: {of: click}, window: 1}
candidates: {use: as_logged, size: 50}
batch: {lists: 64}
model:
  use: ranker
  item: {text: "{title}. {description}", ids: [item, author]}
  scorer: dot
objectives:
  click: {use: single, loss: softmax, label: click}
  satisfied: {use: "my_ideas:satisfied"}
weighting: {use: static, weights: {click: 1, satisfied: 2.5}}
optimizer: {use: adamw, learning_rate: 3e-4}
"""


@pytest.fixture
def loaded(tmp_path):
    """text, overrides -> Config, from a file called a.yaml."""

    def run(text, *overrides, encode=True):
        path = tmp_path / "a.yaml"
        path.write_bytes(text.encode() if encode else text)
        return load(path, overrides)

    return run


@pytest.fixture
def faults(loaded, tmp_path):
    """text, overrides -> the lines of the UserError, the folder cut off."""

    def run(text, *overrides, encode=True):
        with pytest.raises(UserError) as caught:
            loaded(text, *overrides, encode=encode)
        return str(caught.value).replace(f"{tmp_path}/", "").split("\n  ")

    return run


def test_a_config_holds_what_the_file_says_and_the_defaults(loaded):
    config = loaded(TEXT)
    assert (config.seed, config.epochs, config.steps) == (3, 5.0, None)
    assert config.data.use == "table" and dict(config.data.settings) == {"path": "my_shop", "events": "events.parquet"}
    assert config.objectives["click"].settings["loss"] == "softmax"
    assert config.weighting.settings["weights"] == {"click": 1, "satisfied": 2.5}
    assert config.model.settings["item"]["ids"] == ("item", "author")
    assert config.optimizer.settings["learning_rate"] == 0.0003
    assert (config.batch.item_row, config.batch.user_row, config.batch.chunk_rows) == (64, 256, None)
    assert (config.lists.history.of, config.lists.history.last, config.lists.window) == ("click", 50, 1)
    assert config.evaluate.metrics == ("ndcg@10", "auc") and config.evaluate.every is None
    assert (config.save.every.minutes, config.save.keep) == (10.0, 2)
    assert (config.parallel.map, config.non_finite, config.weight_scale) == ("shard_map", "raise", "unit")


def test_the_dump_loads_to_an_equal_config_and_the_same_dump(loaded):
    config = loaded(TEXT, "evaluate.every.steps=7", "save.every={epochs: 0.5}", "steps=10", "epochs=null")
    again = loaded(dump(config))
    assert again == config and dump(again) == dump(config)
    assert parse(plain(config)) == config == pickle.loads(pickle.dumps(config)) == copy.deepcopy(config)
    assert loaded(TEXT) != config
    assert "epochs" not in plain(config) and "steps" not in plain(loaded(TEXT))


def test_the_order_of_objectives_and_the_kind_of_a_number_tell_configs_apart(loaded):
    config = loaded(TEXT)
    mapping = plain(config)
    mapping["objectives"] = dict(reversed(mapping["objectives"].items()))
    assert parse(mapping) != config
    assert loaded(TEXT, "candidates.size=50.0") != config and loaded(TEXT, "candidates.size=50") == config


def test_the_dump_says_the_same_to_a_reader_of_yaml_1_1(loaded):
    config = loaded(TEXT, "optimizer.learning_rate=1e-07", "model.note='1e5 on'", "model.big=1e300")
    assert yaml.safe_load(dump(config)) == plain(config)


def test_nothing_of_a_config_can_be_changed(loaded):
    config = loaded(TEXT)
    for change in (
        lambda: setattr(config, "seed", 1),
        lambda: setattr(config.data, "path", "x"),
        lambda: config.objectives.update(x=1),
        lambda: config.labels.clear(),
        lambda: config.weighting.settings.update(weights={}),
        lambda: config.weighting.settings["weights"].update(click=3),
        lambda: config.model.settings["item"]["ids"].append("x"),
    ):
        with pytest.raises((ValueError, AttributeError, TypeError)):
            change()
    assert config == loaded(TEXT)


def test_python_data_may_have_paths_and_tuples(loaded):
    mapping = plain(loaded(TEXT)) | {"data": {"use": "table", "path": Path("my_shop"), "events": "events.parquet"}}
    mapping["model"] = Block(
        use="ranker", item={"text": "{title}. {description}", "ids": ("item", "author")}, scorer="dot"
    )
    assert parse(mapping) == loaded(TEXT)


@pytest.mark.parametrize(
    "written_so, means",
    [
        ("1e-4", 1e-4), ("1e-3", 1e-3), ("1E5", 1e5), ("3e-4", 3e-4), ("1.", 1.0), (".5", 0.5), ("-2", -2), ("+3", 3),
        ("0", 0), ("true", True), ("false", False), ("null", None), ("~", None), (".inf", math.inf),
        ("-.inf", -math.inf),
        ("off", "off"), ("no", "no"), ("yes", "yes"), ("on", "on"), ("True", "True"), ("NO", "NO"), ("y", "y"),
        ("012", "012"), ("1:30", "1:30"), ("1_000", "1_000"), ("0x1F", "0x1F"), ("2026-01-02", "2026-01-02"),
        ("'1'", "1"), ('"true"', "true"), ("''", ""), ("[1, a]", [1, "a"]), ("{off: 1, 2: no}", {"off": 1, "2": "no"}),
        ("=", "="), ("1.2.3", "1.2.3"), ("inf", "inf"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_a_scalar_means_what_it_says(written_so, means):
    document = read(f"key: {written_so}", "a.yaml")
    assert document.problems == []
    assert document.value == {"key": means} and type(document.value["key"]) is type(means)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=9), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=9), PLAIN, max_size=4))
def test_what_is_written_reads_back_bit_for_bit(value):
    document = read(written(value), "a.yaml")
    assert document.problems == [] and repr(document.value) == repr(value)


def test_a_byte_order_mark_and_carriage_returns_change_nothing(loaded):
    assert loaded(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(), encode=False) == loaded(TEXT)


@pytest.mark.parametrize(
    "old, new, line, words",
    [
        ("seed: 3", "seed: 3\nseed: 4", "a.yaml:2: seed: ", "lines 1 and 2"),
        ("{lists: 64}", "{lists: 64, lists: 3}", "a.yaml:8: batch.lists: ", "line 8 twice"),
        ("{lists: 64}", "{lists: 64, lits: 3}", "a.yaml:8: batch.lits: ", "did you mean `lists`?"),
        ("optimizer:", "optimiser:", "a.yaml:17: optimiser: ", "did you mean `optimizer`?"),
        ("optimizer:", "optimiser:", "optimizer: ", "the key is missing"),
        ("{lists: 64}", "{lists: 64.5}", "a.yaml:8: batch.lists: ", "found 64.5; expected a whole number"),
        ("{lists: 64}", "{lists: '64'}", "a.yaml:8: batch.lists: ", 'found text "64"; expected a whole number'),
        ("{lists: 64}", "{lists: true}", "a.yaml:8: batch.lists: ", "found true; expected a whole number"),
        ("{lists: 64}", "{lists: -1}", "a.yaml:8: batch.lists: ", "found -1; expected 1 or more"),
        ("{lists: 64}", "{lists: 64, item_row: 2}", "a.yaml:8: batch.item_row: ", "found 2; expected 3 or more"),
        ("{lists: 64}", "", "a.yaml:8: batch: ", "found null; expected keys and values"),
        ("epochs: 5", "epochs: .nan", "a.yaml:2: epochs: ", "found .nan; expected a number"),
        ("epochs: 5", "epochs: .inf", "a.yaml:2: epochs: ", "found inf; expected a finite number"),
        ("epochs: 5", "epochs: 1e999", "a.yaml:2: epochs: ", "found 1e999; expected a number within range"),
        ("epochs: 5", "epochs: 0", "a.yaml:2: epochs: ", "found 0; expected a number above 0"),
        ("epochs: 5", "epochs: 5\nsteps: 3", "a.yaml:3: steps: ", "found epochs and steps; expected exactly one"),
        ("epochs: 5", "", "steps: ", "found none; expected exactly one of epochs or steps"),
        ("seed: 3", "seed: -1", "a.yaml:1: seed: ", "found -1; expected 0 or more"),
        ("seed: 3", f"seed: {2**63}", "a.yaml:1: seed: ", "expected a whole number of 64 bits"),
        ("seed: 3", "seed: 4294967296", "a.yaml:1: seed: ", "expected a number below 4294967296"),
        ("seed: 3", "seed: " + "9" * 5000, "a.yaml:1: seed: ", "expected a number within range"),
        ("{use: as_logged, size: 50}", "as_logged", "a.yaml:7: candidates: ", "{use: NAME, ...}"),
        ("use: as_logged", "use: ''", "a.yaml:7: candidates.use: ", "expected text that is not empty"),
        ("use: as_logged, ", "", "a.yaml:7: candidates.use: ", "the key is missing: which function?"),
        ("  click: {use", "  cl-ick: {use", "a.yaml:14: objectives.cl-ick: ", "a name of letters, digits and _"),
        ("seed: 3", "seed: 3\nparallel: {map: pmpa}", "a.yaml:2: parallel.map: ", "'shard_map' or 'pmap'"),
        ("seed: 3", "seed: 3\nsave: {every: {}}", "a.yaml:2: save.every: ", "one of minutes or epochs or steps"),
        ("seed: 3", "seed: !!python/object:os.system 3", "a.yaml:1: ", "the tag !!python/object:os.system"),
        ("seed: 3", "seed: !!float 3", "a.yaml:1: ", "the tag !!float is not allowed"),
        ("seed: 3", "? [a]\n: 3", "a.yaml:1: ", "a key must be text"),
        ("seed: 3", "seed: &a 3\n<<: *a", "a.yaml:2: <<: ", "merge keys"),
        ("size: 50", "size: 50, x: \"\\ud800\"", "a.yaml:7: candidates.x: ", "expected text"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_line_key_found_and_expected(faults, old, new, line, words):
    assert old in TEXT
    lines = faults(TEXT.replace(old, new, 1))
    assert any(one.startswith(line) and words in one for one in lines), lines


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "a.yaml: the file is empty"),
        ("# nothing\n", "a.yaml: the file is empty"),
        ("---\n", "a.yaml: the file is empty"),
        ("- a\n- b\n", "a.yaml: found a list of 2; expected the keys"),
        ("just text", 'a.yaml: found text "just text"; expected the keys'),
        ("seed: 0\nbatch:\n\tlists: 3\n", "a.yaml:3: this is not the YAML of a config: a tab stands"),
        ("seed: 0\nuse: a: b\n", "a.yaml:2: this is not the YAML of a config: a second `: `"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: this is not the YAML"),
        ("a: [1, 2\nb: 3\n", "a.yaml:2: this is not the YAML"),
        ("seed: 0\na: \x01\n", "a.yaml:2: a character that may not stand in YAML"),
        ("a: " + "[" * 3000, "a.yaml:1: this is not the YAML of a config: more than 50 levels"),
        ("\n".join(f"{' ' * i}a:" for i in range(60)), "a.yaml:50: this is not the YAML of a config: more than 50"),
        ("a: [" + "1," * 60_000 + "]", "a.yaml:1: this is not the YAML of a config: more than 50,000 keys and values"),
        ("a: &x [*x]", "a.yaml:1: this is not the YAML of a config: an alias (*name) stands inside what it names"),
        ("a: *x", "a.yaml:1: this is not the YAML of a config: found undefined alias"),
        ("a0: &a0 [x]\n" + "\n".join(f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]" for i in range(12)), "10,000"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)  # fmt: skip
def test_a_text_that_is_no_config_gives_one_sentence(faults, text, words):
    (line,) = faults(text)
    assert words in line


def test_bytes_that_are_not_utf_8_are_named_with_their_line(faults):
    (line,) = faults(b"seed: 0\nnote: \xff\n", encode=False)
    assert line == "a.yaml:2: byte 14 is not UTF-8; save the config as UTF-8"


def test_a_file_that_is_absent_a_folder_or_too_large_is_named(faults, tmp_path):
    for path, words in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("a\0"), "null byte"),
    ):
        with pytest.raises(UserError, match=words):
            load(path)
    (line,) = faults("# " + "x" * 1_000_000)
    assert "larger than 1,000,000 bytes" in line


def test_aliases_within_bounds_are_plain_copies(loaded):
    config = loaded(
        TEXT.replace("{use: as_logged, size: 50}", "&c {use: as_logged, size: 50}") + "evaluate: {candidates: *c}\n"
    )
    assert config.evaluate.candidates == config.candidates


def test_all_problems_are_in_one_report(faults):
    text = TEXT.replace("seed: 3", "sed: x").replace("lists: 64", "lists: 0").replace("epochs: 5", "epochs: .nan")
    lines = faults(text + "weighting: 3\n", "batch.item_row=big", "batsh.lists=3")
    assert lines == [
        "the config has 6 problems:",
        "a.yaml:1: sed: this is not a key here; did you mean `seed`?",
        "a.yaml:2: epochs: found .nan; expected a number",
        "a.yaml:8: batch.lists: found 0; expected 1 or more",
        "a.yaml:18: weighting: the key is given twice, on lines 16 and 18; keep one",
        "override `batsh.lists=3`: batsh is not a key of a config; did you mean `batch`?",
        'override `batch.item_row=big`: batch.item_row: found text "big"; expected a whole number',
    ]


def test_overrides_are_yaml_and_make_keys_on_the_way(loaded):
    config = loaded(
        TEXT,
        "batch.lists=128",
        "optimizer.learning_rate=1e-4",
        "optimizer.nested.deep=[1, 'a']",
        "evaluate.every.epochs=2",
        "evaluate.select=''",
        "labels.long.use=share",
        "tokenizer={use: trained, size: 500}",
    )
    assert config.batch.lists == 128 and config.batch.item_row == 64
    assert config.optimizer.settings["learning_rate"] == 1e-4
    assert config.optimizer.settings["nested"] == {"deep": (1, "a")}
    assert config.evaluate.every.epochs == 2.0 and config.evaluate.select == ""
    assert config.labels["long"].use == "share" and set(config.labels) == {"satisfied", "long"}
    assert config.tokenizer.settings["size"] == 500
    assert config.places[("batch", "lists")] == "override `batch.lists=128`"
    assert config.places[("seed",)].endswith("a.yaml:1")


@pytest.mark.parametrize(
    "override, words",
    [
        ("batch.lists", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("batch..lists=3", "expected KEY=VALUE"),
        ("batch.lists=", "there is no value"),
        ("batch.lists=#3", None),
        ("batch.lists=[1", "this is not the YAML"),
        ("batch.lists={a: 1, a: 2}", "given twice"),
        ("bach.lists=3", "did you mean `batch`?"),
        ("batch.list=3", "did you mean `lists`?"),
        ("model.item.text={titel}. {x}", """; text that begins with a brace is quoted: model.item.text='"..."'"""),
        ("model.scorer.bias=true", 'model.scorer is text "dot", so nothing stands below it; override model.scorer as'),
        ("model.item.ids.0=x", "model.item.ids is a list of 2"),
        ("seed=!!int 3", "the tag !!int"),
        ("seed=1\n", None),
    ],
)
def test_a_bad_override_is_quoted(faults, loaded, override, words):
    if words is None and override.startswith("seed"):
        assert loaded(TEXT, override).seed == 1
        return
    lines = faults(TEXT, override)
    assert lines[0].startswith(f"override `{override}`: ") and (words or "") in lines[0]


def test_an_override_takes_the_place_of_what_it_replaces(faults, loaded):
    lines = faults(TEXT, "batch={lists: x}")
    assert lines == ['override `batch={lists: x}`: batch.lists: found text "x"; expected a whole number']
    config = loaded(TEXT + "tokenizer: null\n", "tokenizer.use=trained")
    assert config.tokenizer == Block(use="trained")


def test_an_override_given_twice_is_a_fault(faults):
    assert faults(TEXT, "seed=1", "seed=2") == ["override `seed=2`: seed is overridden twice; keep one"]


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), float("nan"), {1: 2}, {"": 2}, {"k" * 201: 1}, b"x", 1j, "\ud800", {"\ud800": 1}]
)
def test_python_data_that_no_file_can_hold_is_refused(loaded, value):
    mapping = plain(loaded(TEXT))
    mapping["data"]["strange"] = value
    with pytest.raises(UserError, match=r"data\.strange: found .*; expected text"):
        parse(mapping)


def test_a_number_that_cannot_be_is_one_problem_not_an_absent_key_too(loaded):
    with pytest.raises(UserError, match=r"^epochs: found nan; expected text, a number, true, false, a list or keys$"):
        parse(plain(loaded(TEXT)) | {"epochs": math.nan})


def test_python_data_inside_itself_is_refused(loaded):
    mapping = plain(loaded(TEXT))
    mapping["data"]["loop"] = mapping["data"]
    with pytest.raises(UserError, match="more than 50 levels"):
        parse(mapping)
    with pytest.raises(UserError, match="a list of 0; expected a mapping"):
        parse([])


def places_of(value, path=()):
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places_of(child, (*path, key)))]


WHOLE = read(TEXT, "a.yaml").value
ODD = PLAIN | st.sampled_from(
    [float("nan"), {}, [], "", {"use": 3}, {"use": ""}, "1e-3", -1, 10**400, {"epochs": None}]
)


@settings(max_examples=200, deadline=None)
@seed(0)
@given(
    st.lists(
        st.tuples(st.sampled_from(places_of(WHOLE)[1:]), st.sampled_from("xsd"), ODD, st.text()), min_size=1, max_size=3
    )
)
def test_a_mutated_config_is_valid_or_one_user_error(mutations):
    mapping = copy.deepcopy(WHOLE)
    for (*above, last), kind, value, key in mutations:
        room = mapping
        for step in above:
            room = room[step] if isinstance(room, dict) and step in room else {}
        if isinstance(room, dict) and kind == "x":
            room[last] = value
        elif isinstance(room, dict) and kind == "s":
            room[key] = room.pop(last, value)
        elif isinstance(room, dict):
            room.pop(last, None)
    try:
        config = parse(mapping)
    except UserError as error:
        assert str(error)
    else:
        assert read(dump(config), "a.yaml").value == plain(config)


@settings(max_examples=200, deadline=None)
@seed(0)
@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT)), st.integers(0, 9), st.text("{}[]:,-\n\t '\"#&*!|>%@`~?e1.", max_size=3)),
        max_size=3,
    )
)
def test_a_mutated_text_is_valid_or_one_user_error(tmp_path_factory, mutations):
    text = TEXT
    for start, length, new in mutations:
        text = text[:start] + new + text[start + length :]
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(text)
    try:
        config = load(path)
    except UserError as error:
        assert str(error)
    else:
        assert isinstance(config, Config)


def test_reading_a_config_imports_nothing_heavy():
    code = "import sys, mobjrec.config; print(sorted({'jax', 'flax', 'numpy', 'optax', 'rich'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "overrides, given",
    [
        (("steps=3",), {"steps": 3}),
        (("epochs=null", "steps=3"), {"steps": 3}),
        (("steps=3", "epochs=null"), {"steps": 3}),
        (("epochs=2",), {"epochs": 2.0}),
        (("steps=null",), {"epochs": 5.0}),
    ],
)
def test_an_override_of_one_of_the_keys_that_exclude_each_other_wins(overrides, given, loaded):
    found = plain(loaded(TEXT, *overrides))
    assert {name: found[name] for name in ("epochs", "steps") if name in found} == given


def test_it_wins_below_save_and_evaluate_too(loaded):
    text = dump(loaded(TEXT, "evaluate.every={epochs: 1}"))
    found = plain(loaded(text, "save.every.epochs=2", "evaluate.every.steps=9"))
    assert found["save"]["every"] == {"epochs": 2.0} and found["evaluate"]["every"] == {"steps": 9}
    assert plain(loaded(text, "save.every.minutes=3"))["save"]["every"] == {"minutes": 3.0}


def test_overrides_of_both_are_refused(faults):
    assert len(faults(TEXT, "epochs=2", "steps=3")) == 1
    assert "found epochs and steps" in faults(TEXT, "epochs=2", "steps=3")[0]


@pytest.mark.parametrize(
    "here, there", [("epochs: 5", "epohcs: 5"), ("window: 1}", "window: 1}\nsave: {every: {step: 5}}")]
)
def test_a_misspelt_key_is_not_told_again_as_one_that_is_missing(here, there, faults):
    (one,) = faults(TEXT.replace(here, there))
    assert "did you mean" in one


def test_another_key_that_is_none_does_not_hide_that_the_length_is_missing(faults):
    said = faults(TEXT.replace("epochs: 5", "length: 5"))[1:]
    assert ["length: this is not a key" in said[0], "steps: found none" in said[1]] == [True, True]
