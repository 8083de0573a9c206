import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from mobjrec import shipped
from mobjrec.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("jax", "flax", "optax", "orbax", "transformers", "tokenizers", "pyarrow", "rich", "typer", "tensorboardX")


def test_importing_the_package_pulls_in_nothing_heavy():
    code = f"import sys, mobjrec; print([name for name in {HEAVY} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.strip() == "[]"


def test_shipped_configs_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    expected = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    monkeypatch.chdir(tmp_path)
    assert shipped.names() == expected
    for name in expected:
        for form in (name, f"{name}.yaml", f"configs/{name}.yaml"):
            assert shipped.config(form).samefile(ROOT / "configs" / f"{name}.yaml")


def test_a_file_of_the_users_own_goes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("seed: 1")
    assert shipped.config("quickstart") == Path("quickstart")


@pytest.mark.parametrize(
    "name", ["nowhere", "other/quickstart.yaml", "../configs/quickstart.yaml", "quickstart.txt", ""]
)
def test_an_unknown_config_names_what_is_shipped(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="shipped are: "):
        shipped.config(name)


def test_make_targets_and_extras_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cuda", "tpu", "flower", "dp", "wandb", "dev"} <= project["optional-dependencies"].keys()
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}: " in makefile for target in ("quickstart", "test", "test-slow", "bench"))


def test_make_says_what_is_missing_without_a_python(tmp_path):
    said = subprocess.run(
        ["make", "-C", str(ROOT), "test", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 2
    assert "mobjrec needs Python 3.11 or newer" in said.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_config_and_runs_elsewhere(tmp_path):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    source = tmp_path / "source"
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    expected = {name for name in tracked if name.startswith("mobjrec/")}
    expected |= {f"mobjrec/{name}" for name in tracked if name.startswith("configs/") and name.endswith(".yaml")}
    assert expected <= inside
    assert not {name for name in inside if name.split("/")[0] in ("tests", "configs", "docs", "benchmarks")}

    code = "import mobjrec; from mobjrec import shipped; print(mobjrec.__file__, *shipped.names())"
    said = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert said.stderr == ""
    assert said.stdout.split()[0] == str(tmp_path / "site" / "mobjrec" / "__init__.py")
    assert said.stdout.split()[1:] == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
