import itertools
import json
import re
import shutil
import signal
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from mobjrec import checkpoint, record, train
from mobjrec.config import dump, load
from mobjrec.dry import traced
from mobjrec.errors import NumericError, RunFolderError, UserError
from mobjrec.parts import assemble
from mobjrec.resolve import complete

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def cache(tiny_cache) -> Path:
    return tiny_cache


@pytest.fixture(scope="module")
def whole(tiny_run) -> Path:
    """A run of 12 steps that nothing interrupted."""
    return tiny_run


def rows(folder: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in record.TIMED} for row in record.rows(folder)]


def final(folder: Path, cache: Path):
    like = jax.eval_shape(assemble(complete(load(TINY)), cache).first_state)
    return checkpoint.latest(folder, like)[0]


def assert_same(one, other) -> None:
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree_util.tree_leaves_with_path(other), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))


def test_a_run_leaves_its_record(whole):
    found = rows(whole)
    assert [row["step"] for row in found if row["kind"] == "train"] == list(range(1, 13))
    losses = [row["loss/click"] for row in found if row["kind"] == "train"]
    assert all(np.isfinite(loss) and loss > 0 for loss in losses)
    result = json.loads((whole / "result.json").read_text())
    # It reads ids of users, so that no posterior is known.
    assert set(result["table"]["click/ndcg@5"]) == {"own", "before", "after", "error", "truth"}
    assert "ids of users" in result["no_best"]
    assert {"config.yaml", "env.json", "metrics.jsonl", "checkpoints", "best"} <= {p.name for p in whole.iterdir()}


def test_compiling_is_told_apart_from_training(whole):
    timing = json.loads((whole / "result.json").read_text())["timing"]
    assert set(timing) == {"prepare", "compile", "wait", "train", "evaluate", "save"}
    # Twelve steps of a width of 16 take less than tracing one.
    assert timing["compile"] > timing["train"] > 0


def test_a_batch_is_new_until_its_shapes_were_met():
    met, batch = set(), {"a": np.zeros((2, 3)), "b": np.zeros(4)}
    other = {**batch, "a": np.zeros((3, 2))}
    assert [train.unmet(one, met) for one in (batch, batch, other, other, batch)] == [True, False, True, False, False]


def back_at(step: int, folder: Path) -> None:
    """The folder as the saving of `step` left it."""
    for later in [s for s in checkpoint.steps(folder) if s > step]:
        checkpoint.forget(folder, later - 1)
    (folder / "result.json").unlink()


@pytest.mark.slow
def test_a_run_stopped_and_resumed_ends_at_the_same_bits_by_its_dumped_config_too(whole, cache, tmp_path):
    parts = shutil.copytree(whole, tmp_path / "parts")
    back_at(5, parts)
    assert checkpoint.steps(parts) == [5]
    train.run(load(whole / "config.yaml"), parts, cache, quiet=True)
    assert_same(final(parts, cache), final(whole, cache))
    assert rows(parts) == rows(whole)


def test_a_finished_run_is_not_trained_again(whole, cache):
    before = (whole / "metrics.jsonl").read_bytes()
    result = train.run(load(TINY), whole, cache, quiet=True)
    assert result == json.loads((whole / "result.json").read_text())
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_another_config_is_refused_with_the_keys_that_differ(whole, cache):
    with pytest.raises(RunFolderError) as error:
        train.run(load(TINY, ["batch.lists=8", "model.width=8", "save.keep=5"]), whole, cache, quiet=True)
    assert "batch.lists: 16 there, 8 now" in str(error.value)
    assert "model.width: 16 there, 8 now" in str(error.value)
    assert "save.keep" not in str(error.value)


@pytest.mark.parametrize(("policy", "passed"), [([], 0), (["non_finite=skip", "non_finite_limit=2"], 2)])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_all_of_it(policy, passed, cache, tmp_path):
    changes = [*IDS, "optimizer={use: sgd, learning_rate: 1e30}", "save.keep=9", "evaluate.every=null", *policy]
    with pytest.raises(NumericError) as error:
        train.run(load(TINY, changes), tmp_path / "bad", cache, quiet=True)
    found = [row for row in rows(tmp_path / "bad") if row["kind"] == "train"]
    finite = [row["finite"] for row in found]
    assert finite == [True] * (len(found) - 1 - passed) + [False] * (1 + passed)
    last = checkpoint.steps(tmp_path / "bad")[-1]
    assert last == len(found) - 1
    said = r"step %d%s: the loss of (click|recall|satisfaction).* is not finite, the first gradient that is not is that of "
    said = said % (len(found), f", the last of {passed + 1} in a row" if passed else "")
    assert re.match(
        said
        + r"item/\S+; training lists \d+ \(user u\d+, list \d+\), .*not applied, the last good checkpoint is that of",
        str(error.value),
    )
    assert f"that of step {last}. " in str(error.value) and ("non_finite: skip" in str(error.value)) == (not passed)
    # What a step that is passed over leaves is what was there.
    like = jax.eval_shape(assemble(complete(load(TINY, changes)), cache).first_state)
    kept = [checkpoint.latest(tmp_path / "bad", like)[0]]
    for step in range(last - 1, last - 1 - passed, -1):
        checkpoint.forget(tmp_path / "bad", step)
        kept.append(checkpoint.latest(tmp_path / "bad", like)[0])
    for one in kept[1:]:
        assert_same(one._replace(step=kept[0].step), kept[0])


def test_shards_of_every_objective_reach_the_record(whole):
    first = next(row for row in rows(whole) if row["kind"] == "train")
    for name in ("click", "recall", "satisfaction"):
        assert first[f"loss/{name}"] > 0
        assert 0 <= first[f"weight/{name}"] <= 1
    assert np.shape(first["gram"]) == (3, 3)
    assert sum(first[f"weight/{name}"] for name in ("click", "recall", "satisfaction")) == pytest.approx(1, abs=1e-6)
    gram = np.array(first["gram"])
    np.testing.assert_allclose(gram, gram.T, rtol=1e-5)
    # MGDA's answer on the recorded Gram matrix: no objective gets worse to first order.
    weights = np.array([first[f"weight/{name}"] for name in ("click", "recall", "satisfaction")])
    assert (gram @ weights >= weights @ gram @ weights - 1e-6 * np.diagonal(gram).max()).all()
    assert first["gradient_norm/recall"] == pytest.approx(np.sqrt(gram[1, 1]), rel=1e-5)
    cosine = gram[0, 2] / np.sqrt(gram[0, 0] * gram[2, 2])
    assert first["cosine/click/satisfaction"] == pytest.approx(cosine, abs=1e-5)
    # What MGDA follows is the shortest vector.
    assert first["min_norm"] == pytest.approx(np.sqrt(weights @ gram @ weights), rel=1e-3) and first["residual"] < 1e-5
    assert first["learning_rate"] == pytest.approx(3e-3)
    assert first["padding"] == pytest.approx(1 - first["tokens"] / first["cells"])


LAZY = """
from mobjrec.types import Weighting
from mobjrec.weightings.given import solving
from mobjrec.weightings.solvers import Solution, residual

def lazy() -> Weighting:
    def solve(signals):
        weights = signals.present / signals.present.sum()
        return Solution(weights, residual(signals.gram, signals.present, weights))
    return solving(solve)
"""


def test_a_problem_that_is_not_solved_stops_the_run_if_asked(cache, tmp_path, monkeypatch):
    (tmp_path / "lazily.py").write_text(LAZY)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        NumericError, match=r"^step 1: lazily:lazy did not solve its problem: it misses .*, above 0\.001; "
    ):
        train.run(load(TINY, [*LAZILY, "unsolved=raise"]), tmp_path / "stopped", cache, quiet=True)
    assert [row["step"] for row in rows(tmp_path / "stopped") if row["kind"] == "train"] == [1]


def test_problems_that_are_not_solved_are_counted(cache, tmp_path, monkeypatch):
    (tmp_path / "lazily.py").write_text(LAZY)
    monkeypatch.syspath_prepend(tmp_path)
    result = train.run(load(TINY, LAZILY), tmp_path / "run", cache, quiet=True)
    missed = [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "train" and row["residual"] > 1e-3]
    assert missed and f"was not solved in {len(missed)} of 5 steps" in result["told"][-1]


def test_tensorboard_gets_settings_and_a_few_ranked_lists(whole):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(whole / "events")).Reload()
    assert b"optimizer.learning_rate" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    texts = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"] if tag.startswith("ranked/")}
    assert {tag.split("/")[1]: [one.step for one in found] for tag, found in texts.items()} == {
        "test": [0, 12],
        "valid": [6, 12],
    }
    lines = texts["ranked/test/text_summary"][1].tensor_proto.string_val[0].decode().splitlines()
    assert lines[0].startswith("user u")
    assert lines[2].startswith(
        "| item | text | click | recall | satisfaction | utility | label click | label satisfaction"
    )
    utilities = [float(line.split("|")[6]) for line in lines[4:9]]
    assert utilities == sorted(utilities, reverse=True) and len(set(utilities)) > 1


def test_dump_of_complete_is_complete(whole):
    text = (whole / "config.yaml").read_text()
    assert dump(complete(load(whole / "config.yaml"))) == text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "evaluate.select=click/ndcg@50",
            r"evaluate.select: click/ndcg@50 is not measured.*did you mean `click/ndcg@5`\?",
        ),
        ("evaluate.metrics=[ndgc@5]", r"evaluate.metrics.0: no metric ndgc.*did you mean ndcg\?"),
        (
            "objectives.click.label=clicks",
            r"objectives.click: label clicks is not there; labels are click, satisfaction",
        ),
        ("tokenizer=null", "tokenizer: a template reads text"),
        ("model.item.text='{titel}'", r"no column titel; .*did you mean title\?"),
        (
            "parallel.devices=3",
            r"batch.lists is 16, but parallel.devices is 3, .* batch.lists=15, or parallel.devices=2",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_any_work(cache, tmp_path, change, says):
    with pytest.raises(UserError, match=says):
        train.run(load(TINY, [change]), tmp_path / "run", cache, quiet=True)


@pytest.mark.parametrize("start", [train.run, lambda config, folder, cache, quiet: traced(config, cache)])
def test_lists_that_the_machines_devices_cannot_share_are_told_before_data_are_read(start, tmp_path, monkeypatch):
    monkeypatch.setattr("mobjrec.parts.data_of", None)
    says = r"batch.lists is 15, but parallel.devices is null, which takes all 8 cpu .* batch.lists=16, or parallel.devices=5"
    with pytest.raises(UserError, match=says):
        start(load(TINY, ["batch.lists=15", "parallel.devices=null"]), tmp_path / "run", tmp_path / "cache", quiet=True)


IDS = [
    "tokenizer=null",
    "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}",
    "weighting={use: equal}",
    "evaluate={metrics: [auc], every: {steps: 2}, select: click/auc}",
    "save={every: {steps: 1}, keep: 2}",
    "steps=5",
]
LAZILY = [*(one for one in IDS if not one.startswith("weighting")), "weighting={use: 'lazily:lazy'}"]


@contextmanager
def fails(*which):
    """In the block the saves of these numbers, from 1, find the disk full."""
    free, calls = shutil.disk_usage, itertools.count(1)

    def usage(path):
        return namedtuple("usage", "free")(10) if next(calls) in which else free(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", usage)
        yield


@pytest.fixture(scope="module")
def plain(cache, tmp_path_factory):
    """A run on ids alone; saves are those of steps 1, 2 (the best first), 3, 4, 5."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    train.run(load(TINY, IDS), folder, cache, quiet=True)
    return folder


def first_ids(cache):
    return jax.eval_shape(assemble(complete(load(TINY, IDS)), cache).first_state)


def ids_final(folder, cache):
    return checkpoint.latest(folder, first_ids(cache))[0]


@pytest.mark.slow
def test_the_best_step_is_kept_and_found_again_after_going_back(cache, tmp_path):
    every = "evaluate={metrics: [ndcg@5], every: {steps: 3}, select: click/ndcg@5}"
    changes = [*IDS[:3], every, "save={every: {steps: 5}}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train.run(load(TINY, changes), whole, cache, quiet=True)
    values = {r["step"]: r["valid/click/ndcg@5"] for r in record.rows(whole) if "valid/click/ndcg@5" in r}
    assert result["chosen"] == max(values, key=values.get)
    train.run(load(TINY, changes), parts, cache, quiet=True)
    back_at(10, parts)
    again = train.run(load(TINY, changes), parts, cache, quiet=True)
    assert again["chosen"] == result["chosen"]
    assert_same(ids_final(parts, cache), ids_final(whole, cache))


@pytest.mark.slow
def test_a_run_that_ended_goes_on_to_more_steps_at_the_same_bits(plain, cache, tmp_path):
    train.run(load(TINY, [*IDS[:-1], "steps=3"]), tmp_path / "parts", cache, quiet=True)
    train.run(load(TINY, IDS), tmp_path / "parts", cache, quiet=True)
    assert_same(ids_final(tmp_path / "parts", cache), ids_final(plain, cache))
    pick = lambda folder: [row for row in rows(folder) if row["kind"] == "train"]
    assert pick(tmp_path / "parts") == pick(plain)


def test_the_dumped_config_trains_the_same_run(plain, cache, tmp_path):
    train.run(load(plain / "config.yaml"), tmp_path / "again", cache, quiet=True)
    assert rows(tmp_path / "again") == rows(plain)
    assert_same(ids_final(tmp_path / "again", cache), ids_final(plain, cache))


def test_one_save_that_fails_passes_with_a_warning(plain, cache, tmp_path, capsys):
    with fails(1, 4):
        train.run(load(TINY, IDS), tmp_path / "run", cache)
    said = " ".join(capsys.readouterr().err.split())
    assert "no room for step 1 in" in said and "no room for step 3 in" in said
    assert "10 free; training goes on and stops if the next save fails, too" in said
    assert_same(ids_final(tmp_path / "run", cache), ids_final(plain, cache))
    assert rows(tmp_path / "run") == rows(plain)


@pytest.mark.slow
def test_the_second_failed_save_in_a_row_stops_and_what_was_sealed_goes_on(plain, cache, tmp_path):
    with fails(4, 5), pytest.raises(RunFolderError, match=r"no room for step 4 .* two saves in a row failed"):
        train.run(load(TINY, IDS), tmp_path / "run", cache, quiet=True)
    assert checkpoint.steps(tmp_path / "run") == [1, 2]
    train.run(load(TINY, IDS), tmp_path / "run", cache, quiet=True)
    assert_same(ids_final(tmp_path / "run", cache), ids_final(plain, cache))
    assert rows(tmp_path / "run") == rows(plain)


def test_a_best_step_that_could_not_be_saved_is_not_the_best(plain, cache, tmp_path):
    with fails(2):
        result = train.run(load(TINY, IDS), tmp_path / "run", cache, quiet=True)
    values = {r["step"]: r["valid/click/auc"] for r in record.rows(tmp_path / "run") if "valid/click/auc" in r}
    assert result["chosen"] == 4 and values[4] == values[4]


CHOSEN = (
    "evaluate={metrics: [ndcg@5], every: {steps: 1}, select: utility:click/ndcg@5, floors: {satisfaction/ndcg@5: %s}}"
)


@pytest.mark.slow
def test_the_best_utility_above_a_floor_is_kept_and_a_floor_that_none_meets_is_told(cache, tmp_path, capsys):
    changes = [*IDS[:3], "save.every={steps: 2}", "steps=6"]
    train.run(load(TINY, [*changes, CHOSEN % 0]), tmp_path / "free", cache, quiet=True)
    rows = [row for row in record.rows(tmp_path / "free") if "valid/satisfaction/ndcg@5" in row]
    select, floored = (
        {row["step"]: row[f"valid/{key}/ndcg@5"] for row in rows} for key in ("utility:click", "satisfaction")
    )
    # A floor that the best step does not meet, but another one does.
    best, floor = max(select, key=select.get), max(floored.values())
    assert floored[best] < floor
    meet = {step: select[step] for step in select if floored[step] >= floor}
    result = train.run(load(TINY, [*changes, CHOSEN % floor]), tmp_path / "some", cache, quiet=True)
    assert result["chosen"] == max(meet, key=meet.get) != best
    none = train.run(load(TINY, [*changes, CHOSEN % 2]), tmp_path / "none", cache, quiet=True)
    assert none["chosen"] == max(select, key=lambda step: (floored[step], select[step]))
    said = none["told"][0]
    assert said.startswith("no evaluation met satisfaction/ndcg@5 >= 2; the step that is kept misses by at most ")


@pytest.mark.slow
def test_patience_stops_alike_whenever_the_run_is_cut(cache, tmp_path):
    # A rate of almost nothing: the first evaluation stays the best.
    changes = [
        *IDS[:3],
        "optimizer={use: sgd, learning_rate: 1e-30}",
        "save.every={steps: 1}",
        "save.keep=9",
        "steps=9",
    ]
    changes += ["evaluate={metrics: [auc], every: {steps: 2}, select: click/auc, patience: 2}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train.run(load(TINY, changes), whole, cache, quiet=True)
    assert (result["steps"], result["chosen"]) == (6, 2)
    assert result["told"][0] == "stopped early at step 6 of 9: no new best in 2 evaluations"
    # At 6 nothing is left to train, at 5 the standing has passed one evaluation.
    for step in (6, 5, 3):
        shutil.copytree(whole, parts, dirs_exist_ok=step != 6)
        back_at(step, parts)
        train.run(load(TINY, changes), parts, cache, quiet=True)
        # As JSON has it, where NaN is null and so equals itself.
        of, again = (json.loads((folder / "result.json").read_text()) for folder in (whole, parts))
        assert all(again[key] == of[key] for key in ("steps", "chosen", "told", "table"))
        assert rows(parts) == rows(whole)
    more = train.run(load(TINY, [*changes, "evaluate.patience=3"]), parts, cache, quiet=True)
    assert more["steps"] == 8


def test_a_signal_while_it_evaluates_saves_the_step_that_it_evaluates(cache, tmp_path, monkeypatch):
    evaluated = train.evaluated

    def then_stop(parts, model, split, *other):
        if split == "valid":
            signal.raise_signal(signal.SIGTERM)
        return evaluated(parts, model, split, *other)

    monkeypatch.setattr(train, "evaluated", then_stop)
    with pytest.raises(train.Stopped):
        train.run(load(TINY, [*IDS, "save.every={steps: 9}"]), tmp_path / "run", cache, quiet=True)
    assert checkpoint.steps(tmp_path / "run") == [2]


@pytest.mark.slow
def test_an_evaluation_that_outlasts_the_grace_is_given_up_and_made_when_the_run_goes_on(
    plain, cache, tmp_path, monkeypatch
):
    run, evaluated, passed = tmp_path / "run", train.evaluated, []

    def then_stop(parts, model, split, *other):
        if split == "valid" and passed and not passed.pop():
            signal.raise_signal(signal.SIGTERM)
        return evaluated(parts, model, split, *other)

    monkeypatch.setattr(train, "evaluated", then_stop)
    # That of step 2 is given up twice, then made, and that of step 4 given up.
    for step, passes in ((2, [False]), (2, [False]), (4, [False, True])):
        passed[:] = passes
        with pytest.raises(train.Stopped, match="stopped by SIGTERM; the same command") as error:
            train.run(load(TINY, [*IDS, "save.grace=0"]), run, cache, quiet=True)
        assert error.value.code == 143
        # The first call of the model gives up; of another evaluation nothing is on record.
        assert checkpoint.steps(run)[-1] == step and checkpoint.sealed(run)["run"]["unmeasured"]
        assert [row["step"] for row in record.rows(run) if "valid/click/auc" in row] == list(range(2, step, 2))
    train.run(load(TINY, [*IDS, "save.grace=0"]), run, cache, quiet=True)
    assert_same(ids_final(run, cache), ids_final(plain, cache))
    assert rows(run) == rows(plain)
    of, again = (json.loads((folder / "result.json").read_text()) for folder in (plain, run))
    assert all(again[key] == of[key] for key in of if key != "timing")
    assert checkpoint.sealed(run)["run"] == checkpoint.sealed(plain)["run"]


def test_keys_that_may_differ_are_told_in_one_line_and_times_are_summed_over_all_starts(plain, cache, tmp_path, capsys):
    parts = shutil.copytree(plain, tmp_path / "parts")
    back_at(4, parts)
    before = json.loads((plain / "result.json").read_text())["timing"]
    result = train.run(load(TINY, [*IDS, "save.keep=3", "save.grace=5"]), parts, cache)
    assert "the run goes on with save.grace=5.0 (was 30.0), save.keep=3 (was 2)" in " ".join(
        capsys.readouterr().err.split()
    )
    first, second = (start["timing"] for start in json.loads((parts / "env.json").read_text()))
    assert first == before and second["prepare"] > 0
    assert result["timing"] == {stage: round(first[stage] + second[stage], 2) for stage in before}


def test_an_overridden_key_is_recorded_and_the_best_step_chosen_anew(plain, cache, tmp_path):
    parts = shutil.copytree(plain, tmp_path / "parts")
    back_at(4, parts)
    changes = [*IDS, "evaluate.select=satisfaction/auc"]
    with pytest.raises(
        RunFolderError, match=r"'click/auc' there, 'satisfaction/auc' now\nuse .* --override-resume KEY"
    ):
        train.run(load(TINY, changes), parts, cache, quiet=True)
    result = train.run(load(TINY, changes), parts, cache, quiet=True, accepted=["evaluate.select"])
    # There is no evaluation after step 4, so the last step stands for the best.
    assert result["chosen"] == 5
    started = json.loads((parts / "env.json").read_text())[-1]
    assert (started["step"], started["overridden"]) == (4, {"evaluate.select": ["click/auc", "satisfaction/auc"]})


def test_a_run_that_is_over_is_chosen_from_anew_by_an_overridden_key_and_fewer_steps_are_told(plain, cache, tmp_path):
    parts = shutil.copytree(plain, tmp_path / "parts")
    changes = [*IDS, "evaluate.select=satisfaction/auc"]
    result = train.run(load(TINY, changes), parts, cache, quiet=True, accepted=["evaluate.select"])
    assert (result["steps"], result["chosen"]) == (5, 5)
    assert result["told"][0].startswith("conflicts between gradients: not measured")
    result = train.run(load(TINY, [*changes[:-2], changes[-1], "steps=3"]), parts, cache, quiet=True)
    assert result["told"][0] == "the run had 5 steps already, beyond the 3 of this config: none was trained"


def test_a_damaged_best_step_is_dropped_with_a_word_and_the_run_goes_on(plain, cache, tmp_path):
    parts = shutil.copytree(plain, tmp_path / "parts")
    (step,) = checkpoint.steps(parts, name=checkpoint.BEST)
    path = next(path for path in sorted((parts / "best" / str(step)).rglob("*")) if path.is_file())
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.warns(UserWarning, match="the best step in .* is damaged and dropped"):
        result = train.run(load(TINY, [*IDS[:-1], "steps=6"]), parts, cache, quiet=True)
    assert result["steps"] == 6 and checkpoint.sealed(parts, name=checkpoint.BEST, files=True)


@pytest.mark.slow
def test_a_best_step_outlives_the_states_that_are_removed_by_hand(plain, cache, tmp_path, monkeypatch):
    parts, chosen = shutil.copytree(plain, tmp_path / "parts"), []
    shutil.rmtree(parts / "checkpoints")
    (parts / "result.json").unlink()
    write = checkpoint.write

    def written(folder, state, step, seal, **names):
        chosen.append(checkpoint.sealed(folder, name=checkpoint.BEST, files=True)["step"])
        write(folder, state, step, seal, **names)

    monkeypatch.setattr(checkpoint, "write", written)
    before = checkpoint.sealed(plain, name=checkpoint.BEST)["step"]
    assert before > 1
    train.run(load(TINY, IDS), parts, cache, quiet=True)
    assert_same(ids_final(parts, cache), ids_final(plain, cache))
    assert rows(parts) == rows(plain)
    assert chosen[0] == before and len(chosen) >= 6
    assert json.loads((parts / "result.json").read_text())["chosen"] == before


def test_steps_passed_over_are_counted_over_a_resume(tmp_path):
    with record.open(tmp_path / "run", "seed: 0") as log:
        log.start(0)
        assert train.passed_over(log.folder) == 0
        for step, finite in enumerate([False, True, False, False], start=1):
            log.write(step, "train", {"finite": finite})
        log.write(4, "eval", {"valid/click/auc": 0.5})
        assert train.passed_over(log.folder) == 2


def test_the_line_of_an_evaluation_has_every_objective_on_its_own_label(cache):
    parts = assemble(complete(load(TINY)), cache)
    values = {
        f"valid/{key}/{metric}": 0.5
        for key in (
            "click",
            "click:satisfaction",
            "recall:click",
            "recall:satisfaction",
            "satisfaction",
            "utility:click",
        )
        for metric in ("ndcg@5", "auc")
    }
    shown = train.shown_metrics(parts, {**values, "valid/satisfaction/ndcg@5": None})
    assert list(shown) == ["click/ndcg@5", "recall:click/ndcg@5", "satisfaction/ndcg@5"]
    assert np.isnan(shown["satisfaction/ndcg@5"])
