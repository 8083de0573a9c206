from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from mobjrec import record, show
from mobjrec.config import dump, load
from mobjrec.errors import RunFolderError

TINY = Path(__file__).parent / "tiny.yaml"


def printed(group) -> str:
    console = Console(file=StringIO(), width=400)
    console.print(group)
    return console.file.getvalue()


def made(folder: Path, changes: list[str] = [], finish: bool = True) -> Path:  # noqa: B006
    with record.open(folder, dump(load(TINY, changes))) as log:
        log.start(0)
        for step, (click, cosine) in enumerate([(3.0, 0.5), (2.0, -0.5), (1.0, -0.5), (1.5, -0.5)], start=1):
            gram = [[4.0, 2 * cosine], [2 * cosine, 1.0]]
            losses = {"loss/click": click, "loss/satisfaction": None, "weight/click": 0.75, "weight/satisfaction": 0.25}
            log.write(step, "train", {**losses, "gram": gram, "cosine/click/satisfaction": cosine})
        cross = {"valid/click:satisfaction/auc": 0.2, "valid/utility:click/auc": 0.3}
        log.write(
            2, "eval", {"valid/click/auc": 0.7, "valid/satisfaction/rmse": 0.5, "valid/click/log_loss": 0.2, **cross}
        )
        log.write(
            4, "eval", {"valid/click/auc": 0.6, "valid/satisfaction/rmse": 0.4, "valid/click/log_loss": 0.3, **cross}
        )
        if finish:
            timing, feed = {"train": 3.0}, {"padding": 0.125, "shapes": 2}
            table = {"click/auc": {"after": 0.7, "own": True}, "click:satisfaction/auc": {"after": 0.1, "own": False}}
            log.finish({"steps": 4, "chosen": 2, "timing": timing, "feed": feed, "table": table, "scale": {}})
        else:
            log.timed({"train": 1.25, "save": 0.5})
            log.write(4, "eval", {"test/click/auc": 0.5})
    return folder


def test_a_run_is_told_in_words_curves_and_conflicts(tmp_path):
    text = printed(show.one(made(tmp_path / "run")))
    assert "done after 4 steps; step 2 is kept" in text
    click = next(line.split() for line in text.splitlines() if line.strip().startswith("click "))
    assert click == ["click", "3.0000", "1.5000", "0.7500", "█▅▁▃"]
    assert ["click/auc", "0.7000", "2", "0.6000", "█▁"] in [line.split() for line in text.splitlines()]
    # An error is best where it is least.
    assert ["satisfaction/rmse", "0.4000", "4", "0.4000", "█▁"] in [line.split() for line in text.splitlines()]
    assert ["click/log_loss", "0.2000", "2", "0.3000", "▁█"] in [line.split() for line in text.splitlines()]
    assert "click:satisfaction/auc" not in text and "utility" not in text
    assert "click and satisfaction: cosine -0.25 on average, apart in 75% of 4 steps" in text
    assert "padding 12.5%" in text and "seconds: train 3.0" in text


def test_a_run_that_is_not_over_says_what_goes_on(tmp_path):
    folder = made(tmp_path / "run", finish=False)
    assert "stopped at step 4; the same `mobjrec train` goes on" in printed(show.one(folder))
    assert "seconds up to the last save or evaluation: train 1.2, save 0.5" in printed(show.one(folder))
    with record.open(folder, ""):
        assert "at step 4, process" in printed(show.one(folder))
    assert "apart in" in printed(show.one(folder))


def test_two_runs_differ_by_keys_and_metrics(tmp_path):
    first, second = made(tmp_path / "a"), made(tmp_path / "b", ["seed=7", "batch.lists=8"], finish=False)
    lines = [line.split() for line in printed(show.two(first, second)).splitlines()]
    assert ["seed", "0", "7"] in lines and ["batch.lists", "16", "8"] in lines
    assert ["click/auc", "0.7000", "0.5000", "-0.2000"] in lines
    assert not any(line[:1] == ["steps"] for line in lines)
    assert "the configs are the same" in printed(show.two(first, first))


@pytest.mark.parametrize("look", [show.one, lambda folder: show.two(folder, folder)])
def test_a_folder_that_is_no_run_is_named(look, tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        look(tmp_path)


@pytest.mark.parametrize(
    "values, bars", [([], ""), ([2.0], "▁"), ([1, 1], "▁▁"), ([0, 7], "▁█"), ([float("nan"), 1], "▁")]
)
def test_a_curve_runs_from_the_lowest_to_the_highest(values, bars):
    assert show.curve(values) == bars


def test_a_long_curve_is_cut_into_means():
    assert len(show.curve([float(n) for n in range(1000)])) == show.WIDTH
