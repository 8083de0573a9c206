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
        "jnp.where(where, scores, jnp.finfo(scores.dtype).min)\n    return",
        "scores\n    return",
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
    Mutant(
        "sign of the pair",
        "losses/pairwise.py",
        "softplus(-difference)",
        "softplus(difference)",
        "losses/test_pairwise.py",
    ),
    Mutant(
        "pairs of equal labels",
        "losses/pairs.py",
        "(i(labels) > second(labels))",
        "(i(labels) >= second(labels))",
        "losses/test_pairwise.py",
    ),
    Mutant(
        "pairs with masked items",
        "losses/pairs.py",
        "& i(where) & second(where)",
        "& i(where)",
        f"losses/test_pairwise.py {PROMISES}",
        "pairwise_logistic or bpr or hinge",
    ),
    Mutant(
        "swap within k - 1",
        "losses/lambdas.py",
        "_within(rank: Array, k: int | None) -> Array:\n    return jnp.ones(rank.shape, bool) if k is None else rank <= k",
        "_within(rank: Array, k: int | None) -> Array:\n    return jnp.ones(rank.shape, bool) if k is None else rank < k",
        "losses/test_lambdas.py",
    ),
    Mutant(
        "discount of the next rank",
        "losses/lambdas.py",
        "jnp.log2(1.0 + jnp.maximum",
        "jnp.log2(2.0 + jnp.maximum",
        "losses/test_lambdas.py",
    ),
    Mutant(
        "recall swap over all items",
        "losses/lambdas.py",
        "jnp.maximum(jnp.sum(relevant_in(labels, where), axis=-1), 1))",
        "jnp.maximum(jnp.sum(where, axis=-1), 1))",
        "losses/test_lambdas.py",
    ),
    Mutant(
        "gain without -1",
        "losses/approximate.py",
        "jnp.exp2(labels - top) - jnp.exp2(-top), 0.0)",
        "jnp.exp2(labels - top), 0.0)",
        "losses/test_approximate.py",
    ),
    Mutant(
        "ideal of k + 1",
        "losses/approximate.py",
        "jnp.where(place < (gain",
        "jnp.where(place <= (gain",
        "losses/test_smooth_i.py losses/test_approximate.py",
    ),
    Mutant(
        "AP by ranks in the whole list",
        "losses/approximate.py",
        "soft_ranks(scores, relevant, temperature) /",
        "soft_ranks(scores, where, temperature) /",
        "losses/test_approximate.py",
    ),
    Mutant(
        "minimum over padding",
        "losses/smooth_i.py",
        "jnp.min(kept, axis=-1, keepdims=True, where=where, initial=largest)",
        "jnp.min(kept, axis=-1, keepdims=True)",
        f"losses/test_smooth_i.py {PROMISES}",
        "smooth_i",
    ),
    Mutant(
        "positives among the negatives",
        "losses/contrastive.py",
        "return positive, where & ~positive, kept / temperature",
        "return positive, where, kept / temperature",
        "losses/test_contrastive.py",
    ),
    Mutant(
        "logQ added",
        "losses/contrastive.py",
        "logits = logits - jnp.where(where, log_q, 0.0)",
        "logits = logits + jnp.where(where, log_q, 0.0)",
        "losses/test_contrastive.py",
    ),
    Mutant(
        "k-th of padding",
        "losses/contrastive.py",
        "kept = jnp.where(where, scores, -jnp.inf)\n    best",
        "kept = jnp.where(where, scores, 0.0)\n    best",
        f"losses/test_contrastive.py {PROMISES}",
        "sl_at_k or largest",
    ),
    Mutant(
        "negatives' share unweighed",
        "losses/contrastive.py",
        "- _logsumexp(hard, negative)[0] + jnp.log(count)",
        "- _logsumexp(hard, negative)[0]",
        "losses/test_contrastive.py",
    ),
    Mutant(
        "quantile turned round",
        "losses/regression.py",
        "jnp.maximum(tau * error, (tau - 1) * error)",
        "jnp.maximum(-tau * error, (1 - tau) * error)",
        "losses/test_regression.py",
    ),
    Mutant(
        "log of 0",
        "losses/regression.py",
        "jnp.log(jnp.where(labels > 0, labels, 1.0))",
        "jnp.log(labels)",
        f"losses/test_regression.py {PROMISES}",
        "ziln",
    ),
    Mutant(
        "threshold passed at its grade",
        "losses/ordinal.py",
        "[..., None] > jnp.arange(scores.shape[-1])\n    return",
        "[..., None] >= jnp.arange(scores.shape[-1])\n    return",
        "losses/test_ordinal.py",
    ),
    Mutant(
        "terms over items",
        "losses/ordinal.py",
        "jnp.maximum(jnp.sum(asked, axis=(-2, -1)), 1)",
        "jnp.maximum(jnp.sum(where, axis=-1), 1)",
        "losses/test_ordinal.py",
    ),
    Mutant(
        "an item is like itself",
        "losses/beyond.py",
        "axis=-2)), axis=-1) - own",
        "axis=-2)), axis=-1)",
        "losses/test_beyond_losses.py",
    ),
    Mutant(
        "discount from rank 0",
        "metrics/ranking.py",
        "jnp.log2(found.place[:k] + 1.0)",
        "jnp.log2(found.place[:k] + 2.0)",
        "metrics/test_ranking.py",
    ),
    Mutant(
        "recall over k",
        "metrics/ranking.py",
        "return found.items if k is None else jnp.minimum(found.items, k)",
        "return found.items if k is None else k",
        "metrics/test_ranking.py",
    ),
    Mutant(
        "log loss upside down",
        "metrics/pooled.py",
        "return -(y * np.log(p)",
        "return (y * np.log(p)",
        "metrics/test_pooled.py",
    ),
    Mutant(
        "a tie counts as won",
        "metrics/pooled.py",
        "return (lower + level) / 2 / (",
        "return level / (",
        "metrics/test_pooled.py",
    ),
    Mutant(
        "every item weighs by its slot",
        "objectives/debiased.py",
        "known & batch.observed[label] & (batch.labels[label] > 0)",
        "known & batch.observed[label]",
        "objectives/test_debiased.py",
    ),
    Mutant(
        "propensities without a clip",
        "objectives/debiased.py",
        "min(1.0 / value, clip)",
        "1.0 / value",
        "objectives/test_debiased.py",
    ),
    Mutant(
        "what was not seen is relevant",
        "objectives/debiased.py",
        "(1.0 - click) * relevance * missed",
        "(1.0 - click) * missed",
        "objectives/test_debiased.py",
    ),
    Mutant(
        "an adversary that descends",
        "objectives/contrastive.py",
        "return 2.0 * jax.lax.stop_gradient(one) - one",
        "return one",
        "objectives/test_contrastive_objectives.py",
    ),
    Mutant(
        "this split's items are negatives",
        "data/candidates.py",
        "kept = split[place] <= until",
        "kept = split[place] < until",
        "data/test_candidates.py",
    ),
    Mutant(
        "lists begin at their ends",
        "ragged.py",
        "jnp.cumsum(sizes)[:, None] - sizes[:, None]",
        "jnp.cumsum(sizes)[:, None]",
        "test_ragged.py",
    ),
    Mutant(
        "Holm without its staircase",
        "compare.py",
        "np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))",
        "p[order] * np.arange(len(p), 0, -1)",
        "test_compare.py",
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
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-m", "slow or not slow", *tests]
    command += ["-o", f"cache_dir={compiled}"]
    command += ["-k", mutant.only] if mutant.only else []
    # Before the checkout's own; -P keeps the current folder out.
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: f"{one.file}: {one.name}")
def test_what_a_mutant_replaces_is_still_there(mutant):
    assert (ROOT / "mobjrec" / mutant.file).read_text().count(mutant.old) == 1


# A process each: CI runs every third, `pytest -m slow tests/test_mutants.py` all.
@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant", MUTANTS[:: 3 if os.environ.get("CI") else 1], ids=lambda one: f"{one.file}: {one.name}"
)
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
