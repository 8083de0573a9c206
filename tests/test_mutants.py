"""Wrong variants of losses, metrics and ranks, and that the tests of their family notice every one.

A mutant is the package with one piece of one file replaced; the tests then run on it in a process of their own and must
fail. A mutant whose text is not in its file any more fails here, so that the list keeps up with the code.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Mutant(NamedTuple):
    """`old` once in `file`, replaced by `new`; `tests`: files of tests/, `only`: the tests of them that may notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    only: str = ""


PROMISES = "losses/test_loss_promises.py"
MUTANTS = [
    Mutant("sign", "losses/listwise.py", "return -jnp.sum(gain", "return jnp.sum(gain", "losses/test_listwise.py"),
    Mutant(
        "scores not masked",
        "losses/listwise.py",
        "jnp.where(where, scores, jnp.finfo(scores.dtype).min)",
        "scores",
        PROMISES,
        "softmax",
    ),
    Mutant(
        "scores not masked",
        "losses/pointwise.py",
        "scores, labels = jnp.where(where, scores, 0.0), jnp.where(where, labels, 0.0)\n    return masked_mean(jax.nn.softplus",
        "labels = jnp.where(where, labels, 0.0)\n    return masked_mean(jax.nn.softplus",
        PROMISES,
        "sigmoid_cross_entropy",
    ),
    Mutant(
        "mean over all places",
        "losses/reduce.py",
        "jnp.maximum(jnp.sum(where, axis=-1), 1)",
        "where.shape[-1]",
        "losses/test_reduce.py",
    ),
    Mutant(
        "weights in the divisor",
        "losses/reduce.py",
        "jnp.maximum(jnp.sum(where, axis=-1), 1)",
        "jnp.maximum(jnp.sum(where if weights is None else jnp.where(where, weights, 0.0), axis=-1), 1)",
        "losses/test_reduce.py",
    ),
    Mutant(
        "cut at k, no offset",
        "losses/topk.py",
        "(k + offset - soft_ranks",
        "(k - soft_ranks",
        "losses/test_topk.py",
    ),
    Mutant(
        "recall over |P|",
        "losses/topk.py",
        "return _short(inside, relevant, weights, jnp.minimum(jnp.sum(relevant, axis=-1), k))",
        "return _short(inside, relevant, weights, jnp.sum(relevant, axis=-1))",
        "losses/test_topk.py",
    ),
    Mutant(
        "precision over k in a shorter list",
        "losses/topk.py",
        "return _short(inside, relevant, weights, jnp.minimum(jnp.sum(where, axis=-1), k))",
        "return _short(inside, relevant, weights, jnp.full(inside.shape[:-1], k))",
        "losses/test_topk.py",
    ),
    Mutant("soft ranks from 0", "ranks.py", "return 1.0 + jnp.sum(above", "return jnp.sum(above", "test_ranks.py"),
    Mutant(
        "soft ranks count the item itself",
        "ranks.py",
        "where[..., None, :] & (place[:, None] != jnp.arange(kept.shape[-1]))",
        "where[..., None, :] & (place[:, None] >= 0)",
        "test_ranks.py",
    ),
    Mutant(
        "soft ranks in half precision",
        "ranks.py",
        "return jnp.promote_types(scores.dtype, jnp.float32)",
        "return scores.dtype",
        "test_ranks.py",
    ),
]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compilations that mutants share: most of each one's tests are those of the others."""
    return tmp_path_factory.mktemp("compiled")


def outcome(mutant: Mutant, folder: Path, compiled: Path) -> subprocess.CompletedProcess:
    shutil.copytree(ROOT / "mobjrec", folder / "mobjrec", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "mobjrec" / mutant.file
    text = file.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} has {mutant.old!r} {text.count(mutant.old)} times"
    file.write_text(text.replace(mutant.old, mutant.new))
    tests = [str(ROOT / "tests" / one) for one in mutant.tests.split()]
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-o", f"cache_dir={compiled}", *tests]
    command += ["-k", mutant.only] if mutant.only else []
    # Before the checkout's own; -P keeps the current folder out.
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: f"{one.file}: {one.name}")
def test_a_wrong_variant_is_noticed(mutant, tmp_path, compiled):
    done = outcome(mutant, tmp_path, compiled)
    assert done.returncode == 1, (
        f"{mutant.name} in {mutant.file} is not noticed:\n{done.stdout[-2000:]}{done.stderr[-500:]}"
    )
    # By a test that ran, not by a file that cannot be collected.
    assert "= FAILURES =" in done.stdout and "= ERRORS =" not in done.stdout


@pytest.mark.slow
def test_the_package_as_it_is_passes(tmp_path, compiled):
    same = Mutant(
        "none", "losses/reduce.py", "import jax.numpy as jnp", "import jax.numpy as jnp", "losses/test_reduce.py"
    )
    done = outcome(same, tmp_path, compiled)
    assert done.returncode == 0, done.stdout[-2000:]
