import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "mobjrec"
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items() if name != "__init__"}

# Rooms that hold a run together: they know each other and receive losses, models, weightings and readers as values.
RUN = (
    "train follow frames evaluate rank told show compare sweep tune space report profile bench dry describe export "
    "cost hugging pairs catalogue "
    "federated fronts swept together stationary chart checks defaults reading parts frozen inference resume progress "
    "choice saving stopping exposed kept conflicts"
)
BELOW = (
    "config paths resolve lookup trial step mesh state optimizers checkpoint record environment shipped notes "
    "problems data metrics pareto cache exhausted hosts link preferences quantise search"
)
ONE_LIBRARY = {
    "progress": "rich",
    "dry": "rich",
    "defaults": "yaml_reader",
    "describe": "rich overrides",
    "frames": "pyarrow overrides",
    "show": "rich",
    "compare": "rich",
    "swept": "rich",
    "export": "safetensors",
    "hugging": "models",
    "cost": "rich",
    "pairs": "pyarrow",
    "stationary": "gram",
    "tune": "optuna rich",
    "space": "yaml_reader",
    "report": "plotly rich",
    "federated.flower": "flwr",
    "federated": "",
}

# Who may import what: a room (a file or folder, the longest name that fits) -> libraries and other rooms.
WALLS = {
    "types": "jax numpy",
    "errors": "",
    "cache": "",
    "environment": "jax",
    "shipped": "",
    "notes": "",
    "ranks": "jax",
    "pareto": "jax numpy",
    "gram": "jax",
    "ragged": "jax",
    "losses": "jax ranks",
    "metrics": "jax numpy ranks",
    "weightings": "jax numpy optax pareto",
    "objectives": "jax losses",
    "preferences": "jax",
    "models": "jax numpy flax safetensors transformers cache",
    "data": "numpy pyarrow tokenizers cache",
    "data.readers": "numpy pyarrow data cache",
    "quantise": "jax numpy",
    "search": "jax",
    "problems": "",
    "yaml_reader": "yaml problems",
    "yaml_writer": "yaml",
    "overrides": "problems yaml_reader",
    "config": "pydantic pydantic_core problems yaml_reader yaml_writer overrides",
    "lookup": "problems",
    "paths": "lookup problems",
    "fitting": "pydantic problems lookup",
    "trial": "problems",
    "resolve": "config fitting lookup problems trial",
    "state": "jax optax",
    "step": "jax optax objectives gram state",
    "mesh": "jax numpy",
    "link": "jax numpy",
    "hosts": "jax link",
    "optimizers": "jax optax problems",
    "exhausted": "jax config",
    "checkpoint": "jax numpy orbax environment",
    "record": "numpy environment views",
    "views": "tensorboardX wandb",
    "testing": "jax numpy data data.readers models",
    **{name: f"jax numpy {RUN} {BELOW} {ONE_LIBRARY.get(name, '')}" for name in (*RUN.split(), *ONE_LIBRARY)},
    "federated.privacy": f"jax numpy dp_accounting {RUN} {BELOW}",
    "arguments": "typer rich shipped defaults data",
    "cli_fronts": f"typer arguments {RUN}",
    "cli_use": f"typer arguments {RUN}",
    "cli": f"typer numpy arguments cli_fronts cli_use data.readers {RUN} {BELOW}",
    "__main__": "cli",
}
# What every room may import.
FREE = {"types", "errors"}
SAYS_NOTHING = {"utils", "util", "helpers", "common", "misc", "base"}
# The loop is read top to bottom, the seams are one page.
LONGER = {("train", "run"): 120}
LONGER_FILES = {"types": 480}


def imports(name: str) -> set[str]:
    """Modules of ours ("data.lists") and libraries ("jax") that a file imports, at its top or late."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full.removeprefix("mobjrec.") in MODULES else node.module for full in inner.values()}
    ours = {full.removeprefix("mobjrec.") for full in found if full.startswith("mobjrec.")}
    libraries = {full.split(".")[0] for full in found} - set(sys.stdlib_module_names) - {"mobjrec"}
    return ours | libraries


def room(name: str) -> str:
    parts = name.removesuffix(".__init__").split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((known for known in names if known in WALLS), name)


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__"])
def test_imports_stay_within_the_walls(name):
    assert room(name) in WALLS, f"{name}: give it a row in WALLS"
    allowed = {room(name), *WALLS[room(name)].split(), *FREE}
    assert {room(used) for used in imports(name)} <= allowed


def test_no_import_cycle_late_imports_included():
    graph = {name: imports(name if name in FILES else f"{name}.__init__") & MODULES.keys() for name in MODULES}
    TopologicalSorter({name: used - {name} for name, used in graph.items()}).prepare()


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_keep_their_size_and_have_a_name_that_says_something(name):
    assert not SAYS_NOTHING & set(name.split("."))
    text = FILES[name].read_text()
    assert len(text.splitlines()) <= LONGER_FILES.get(name, 350)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            size = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            assert size <= LONGER.get((name, node.name), 60), f"{name}.{node.name}: {size} lines"


def test_nothing_of_ours_is_subclassed_and_nothing_travels_unnamed():
    trees = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
    ours = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                parents = {ast.unparse(parent) for parent in node.bases}
                assert not parents & ours, f"{name}.{node.name} inherits from {parents}"
            if isinstance(node, ast.FunctionDef):
                assert node.args.kwarg is None, f"{name}.{node.name}: **{node.args.kwarg.arg}"
