"""`mobjrec score`: a file of pairs, scored piece by piece."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mobjrec import evaluate, pairs
from mobjrec.cli import app
from mobjrec.errors import UserError

USERS, ITEMS = ["u3", "u1", "u3", "u9", "u1"], ["i2", "i0", "i7", "i2", "i2"]


def written(path, users=USERS, items=ITEMS, **more):
    pq.write_table(pa.table({"user": users, "item": items, **more}), path, row_group_size=2)
    return path


def test_a_file_gets_a_column_for_each_objective_and_the_utility(tiny_trained, tmp_path, monkeypatch):
    run, prefer = tiny_trained, {"click": 0.2, "satisfaction": 0.8}
    # Pieces of two rows and less, so that several are written.
    monkeypatch.setattr(pairs, "ROWS", 2)
    path = written(tmp_path / "pairs.parquet", shown=[1, 2, None, 4, 5])
    assert pairs.scored(run, path, tmp_path / "out.parquet", prefer) == 5
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["user", "item", "shown", "click", "recall", "satisfaction", "utility"]
    assert found["user"].to_pylist() == USERS and found["shown"].to_pylist() == [1, 2, None, 4, 5]
    wanted = run.score(USERS, ITEMS)
    wanted["utility"] = evaluate.utility(wanted, run.scale, prefer)
    for name, values in wanted.items():
        assert found[name].type == pa.float32()
        np.testing.assert_allclose(found[name].to_numpy(), values, rtol=1e-5, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet", "pairs.parquet"]


@pytest.mark.parametrize(
    "change, told",
    [
        (
            {"users": [*USERS[:4], "nobody"]},
            "p.parquet, row 5, column user: there is no user 'nobody' in the run's corpus",
        ),
        ({"items": ["i2", None, *ITEMS[2:]]}, "p.parquet, row 2, column item: is empty; only pairs of known ids"),
        ({"click": [0.0] * 5}, "p.parquet has a column click already, which is to be written; rename or drop it"),
        ({"items": [[1]] * 5}, "p.parquet, column item: list<.*> cannot be read as ids; give text or whole numbers"),
    ],
)
def test_what_cannot_be_scored_is_told_with_file_row_and_column_and_leaves_nothing(
    tiny_trained, tmp_path, change, told
):
    path = written(tmp_path / "p.parquet", **change)
    (tmp_path / "out.parquet").write_text("of before")
    with pytest.raises(UserError, match=told):
        pairs.scored(tiny_trained, path, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_text() == "of before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet", "p.parquet"]


def test_other_files_and_columns_by_other_names_are_told(tiny_trained, tmp_path):
    (tmp_path / "p.csv").write_text("user,item\nu3,i2\n")
    with pytest.raises(UserError, match=r"p\.csv is no Parquet file that can be read"):
        pairs.scored(tiny_trained, tmp_path / "p.csv", tmp_path / "out")
    pq.write_table(pa.table({"who": ["u3"], "item": ["i2"]}), tmp_path / "q.parquet")
    with pytest.raises(UserError, match=r"q\.parquet has no column user; it has who, item: name them user and item"):
        pairs.scored(tiny_trained, tmp_path / "q.parquet", tmp_path / "out")
    with pytest.raises(UserError, match=r"out\.parquet: there is no folder .*absent; make it first"):
        pairs.scored(tiny_trained, written(tmp_path / "p.parquet"), tmp_path / "absent" / "out.parquet")


def test_the_commands(tiny_run, tiny_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MOBJREC_CACHE", str(tiny_cache))
    path, out = written(tmp_path / "p.parquet"), tmp_path / "out.parquet"
    told = CliRunner().invoke(app, ["score", str(tiny_run), str(path), "-o", str(out), "--prefer", "click=1"])
    assert told.exit_code == 0 and "5 pairs scored" in told.output and pq.read_table(out).num_rows == 5
    new = ["export", str(tiny_run), "-o", str(tmp_path / "encoder"), "--format", "sentence-transformers"]
    told = CliRunner().invoke(app, new)
    assert told.exit_code == 0 and "model.safetensors" in told.output and (tmp_path / "encoder/modules.json").is_file()
    for changes, wanted in (
        (["--format", "onnx"], "--format onnx: there are stablehlo, sentence-transformers"),
        (["--format", "sentence-transformers", "--int8"], "--int8 is for --format stablehlo"),
    ):
        found = CliRunner().invoke(app, ["export", str(tiny_run), "-o", str(tmp_path / "new"), *changes])
        assert isinstance(found.exception, UserError) and wanted in str(found.exception)
    assert not (tmp_path / "new").exists()
