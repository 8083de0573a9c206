"""Which changes of a config a run folder takes."""

from pathlib import Path

import pytest

from mobjrec import resume
from mobjrec.config import dump, load, plain
from mobjrec.errors import RunFolderError

TINY = load(Path(__file__).parent / "tiny.yaml")


def refusal(before, now) -> str:
    with pytest.raises(RunFolderError) as error:
        resume.check(dump(before), now, Path("runs/tiny"))
    return str(error.value)


def reordered(config, key):
    """The config with the entries of `key` the other way round."""
    data = plain(config)
    return type(config).model_validate({**data, key: dict(reversed(data[key].items()))}, strict=False)


def test_the_same_config_goes_on():
    resume.check(None, TINY, Path("runs/tiny"))
    resume.check(dump(TINY), TINY, Path("runs/tiny"))


def test_another_order_of_objectives_is_another_run():
    said = refusal(TINY, reordered(TINY, "objectives"))
    assert "order of objectives: click, recall, satisfaction there, satisfaction, recall, click now" in said


def test_another_order_of_path_patterns_is_another_run():
    def grouped(*patterns):
        groups = ", ".join(f'"{pattern}": {{factor: 0.5}}' for pattern in patterns)
        return load(Path(__file__).parent / "tiny.yaml", [f"optimizer.groups={{{groups}}}"])

    said = refusal(grouped("scorer/*", "*"), grouped("*", "scorer/*"))
    assert "order of optimizer.groups: scorer/*, * there, *, scorer/* now" in said


def test_an_objective_more_is_told_by_its_keys():
    more = load(Path(__file__).parent / "tiny.yaml", ["objectives.other={use: recall}"])
    assert "objectives.other.use: None there, 'recall' now" in refusal(TINY, more)
