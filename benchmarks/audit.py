"""Which named method is what its paper says: the same gradients through TorchJD, LibMTL, ConFIG's own package, and ours.

    python benchmarks/audit.py --keep                    # makes the peers' environment in a temporary folder
    python benchmarks/audit.py --peers ENV/bin/python    # one that is there
    python benchmarks/audit.py --render

The truth is solved here in 64 bits and numpy alone, each method by its own condition: enumeration of supports for the nearest
point, the dual cone and CAGrad, Newton for the bargains, linear algebra for the rest. A number is the largest relative
difference of the update from it, up to one factor where the code says that it scales (LibMTL sums where the paper averages).
Three sets of matrices, K = 2 to 5: ordinary ones, most with conflicts; the same with lengths from 1e-2 to 1e2; the ordinary
ones times 1e-4. Peers run in 64 bits, ours in 64 and in 32. Where a method draws an order, only K = 2 is compared.
`--reference FILE` holds the truths against published exact vectors. Rows are appended to results/audit.jsonl.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "audit.jsonl"
PINS = Path(__file__).parent / "peers" / "audit.txt"
SETS = ("ordinary", "unequal lengths", "small")
# As good as its paper: no set is further off than the sharpest of peers' tolerances lets it be.
GOOD = 1e-3
WIDTH, EACH = 8, 12
Rows = np.ndarray


def matrices() -> dict[str, list[Rows]]:
    random = np.random.default_rng(0)
    plain = []
    for count in (2, 3, 4, 5):
        for number in range(EACH):
            rows = random.normal(size=(count, WIDTH))
            # Most sets conflict: a part of the mean is taken away.
            plain.append(rows - 0.25 * (number % 4) * rows.mean(axis=0))
    unequal = [rows * random.permutation(np.logspace(-2, 2, len(rows)))[:, None] for rows in plain]
    return {"ordinary": plain, "unequal lengths": unequal, "small": [1e-4 * rows for rows in plain]}


def supports(count: int) -> Any:
    return (list(one) for size in range(1, count + 1) for one in combinations(range(count), size))


def mean(rows: Rows) -> Rows:
    return rows.mean(axis=0)


def mgda(rows: Rows) -> Rows:
    """The shortest of the supports' affine points that lie inside."""
    best = min(rows, key=np.linalg.norm)
    for support in supports(len(rows)):
        some = rows[support]
        edges = some[1:] - some[0]
        part = np.linalg.lstsq(edges.T, -some[0], rcond=None)[0] if len(some) > 1 else np.zeros(0)
        weights = np.array([1 - part.sum(), *part])
        if (weights >= -1e-13).all() and np.linalg.norm(weights @ some) < np.linalg.norm(best):
            best = weights @ some
    return best


def projected(rows: Rows, target: Rows) -> Rows:
    """The nearest to the target of all d with rows . d >= 0: the one of the supports' projections that is optimal."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    size, best = np.linalg.norm(target), (np.inf, target)
    if (unit @ target >= -1e-14 * size).all():
        return target
    for support in supports(len(rows)):
        some = unit[support]
        prices = np.linalg.lstsq(some @ some.T, -some @ target, rcond=None)[0]
        found = target + prices @ some
        if (prices >= -1e-10 * size).all() and (unit @ found >= -1e-10 * size).all():
            best = min(best, (np.linalg.norm(found - target), found), key=lambda one: one[0])
    return best[1]


def upgrad(rows: Rows) -> Rows:
    return np.mean([projected(rows, one) for one in rows], axis=0)


def dualproj(rows: Rows) -> Rows:
    return projected(rows, rows.mean(axis=0))


def cagrad(rows: Rows, c: float = 0.4) -> Rows:
    """The d in the ball around the mean whose least gain is the largest: on its support all gains are one number t."""
    middle = rows.mean(axis=0)
    radius, best = c * np.linalg.norm(middle), (-np.inf, middle)
    for support in supports(len(rows)):
        some = rows[support]
        # v = (t 1 - b) G^-1 / r of |sum v g| = 1, a square equation in t.
        ones, gains = (np.linalg.solve(some @ some.T, x) for x in (np.ones(len(some)), some @ middle))
        a, b, c0 = ones.sum(), -2 * gains.sum(), (some @ middle) @ gains - radius**2
        for t in np.roots([a, b, c0]):
            v = (np.real(t) * ones - gains) / radius
            found = middle + radius * v @ some
            if abs(np.imag(t)) < 1e-12 and (v >= -1e-9 * np.abs(v).max()).all():
                best = max(best, ((rows @ found).min(), found), key=lambda one: one[0])
    return best[1]


def bargained(rows: Rows, power: float) -> Rows:
    """a > 0 of (G a)_k = a_k^-power: Newton on log a with steps that shorten the equation's residual."""
    gram = rows @ rows.T
    length = np.sqrt(np.diagonal(gram))
    cosines, log = gram / np.outer(length, length), np.zeros(len(rows))
    # In b = a * length: (C b)_k = b_k^-power length_k^(power - 1).
    wish = (power - 1) * np.log(length)

    def residual(log: Rows) -> Rows:
        product = cosines @ np.exp(log)
        return (
            np.log(np.maximum(product, 1e-300)) + power * log - wish if (product > 0).all() else np.full(len(log), 1e9)
        )

    # From the answer of orthogonal gradients, which is known.
    log = wish / (1 + power)
    mix = 0.0
    while mix < 1:
        # The off-diagonal grows step by step, so that every Newton starts near.
        mix = min(1.0, mix + 0.02)
        part = mix * gram / np.outer(length, length) + (1 - mix) * np.eye(len(rows))
        for _ in range(60):
            product = part @ np.exp(log)
            gap = product - np.exp(wish - power * log)
            slope = part * np.exp(log) + np.diag(power * np.exp(wish - power * log))
            step = np.linalg.solve(slope, -gap)
            log = log + step / max(1.0, np.abs(step).max())
            if np.abs(step).max() < 1e-14:
                break
    cosines = gram / np.outer(length, length)
    assert np.abs(residual(log)).max() < 1e-9, f"the bargain is not solved: {residual(log)}"
    return (np.exp(log) / length) @ rows


def nash(rows: Rows) -> Rows:
    return bargained(rows, 1.0)


def fairgrad(rows: Rows) -> Rows:
    return bargained(rows, 0.5)


def imtl_g(rows: Rows) -> Rows:
    """sum w = 1 and the same product with every unit gradient."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    system = np.vstack([(unit[1:] - unit[0]) @ rows.T / np.linalg.norm(rows), np.ones(len(rows))])
    return np.linalg.solve(system, np.eye(len(rows))[-1]) @ rows


def config(rows: Rows) -> Rows:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    towards = np.linalg.pinv(unit) @ np.ones(len(rows))
    towards = towards / np.linalg.norm(towards)
    return (rows @ towards).sum() * towards


def aligned(rows: Rows) -> Rows:
    """s U V^T of the gradients' singular value decomposition, s the smallest, at equal preferences."""
    left, size, right = np.linalg.svd(rows, full_matrices=False)
    return size.min() * (np.ones(len(rows)) / len(rows)) @ left @ right


def surgery(rows: Rows) -> Rows:
    """PCGrad's sum for two gradients."""
    first, second = rows
    product = min(first @ second, 0.0)
    return first - product / (second @ second) * second + second - product / (first @ first) * first


# {method: (truth, does an order count, up to a factor)}
TRUTHS: dict[str, tuple[Callable[[Rows], Rows], bool, bool]] = {
    "mean": (mean, False, True),
    "MGDA": (mgda, False, False),
    "UPGrad": (upgrad, False, False),
    "DualProj": (dualproj, False, False),
    "CAGrad 0.4": (cagrad, False, True),
    "Nash-MTL": (nash, False, True),
    "FairGrad 2": (fairgrad, False, False),
    "IMTL-G": (imtl_g, False, False),
    "ConFIG": (config, False, False),
    "Aligned-MTL": (aligned, False, True),
    "PCGrad": (surgery, True, False),
    "GradVac": (surgery, True, False),
}
PUBLISHED = {
    **{"MGDA": "MGDA", "UPGrad": "UPGrad", "DualProj": "DualProj", "CAGrad 0.4": "CAGrad", "Nash-MTL": "NashMTL"},
    **{"FairGrad 2": "FairGrad", "IMTL-G": "IMTLG", "ConFIG": "ConFIG", "Aligned-MTL": "AlignedMTL"},
}

Runs = dict[str, Callable[[Rows], Rows]]


def ours(bits: int) -> Runs:
    import jax
    import jax.numpy as jnp

    from mobjrec import weightings
    from mobjrec.types import Signals

    jax.config.update("jax_enable_x64", bits == 64)
    members = {
        "mean": weightings.equal(),
        "MGDA": weightings.mgda(),
        "UPGrad": weightings.upgrad(),
        "DualProj": weightings.dualproj(),
        "CAGrad 0.4": weightings.cagrad(0.4),
        "Nash-MTL": weightings.nash_mtl(None),
        "FairGrad 2": weightings.fairgrad(2.0),
        "IMTL-G": weightings.imtl_g(),
        "ConFIG": weightings.config(),
        "Aligned-MTL": weightings.aligned_mtl(),
        "PCGrad": weightings.pcgrad(),
        "GradVac": weightings.gradvac(),
    }

    def run(weighting: Any) -> Callable[[Rows], Rows]:
        update = jax.jit(lambda signals: weighting.update(signals, weighting.init(5))[0])

        def one(rows: Rows) -> Rows:
            # All are of five objectives, those that are not there being absent: one program a method.
            whole = np.zeros((5, WIDTH))
            whole[: len(rows)] = rows
            kind = np.float64 if bits == 64 else np.float32
            gram, there = (whole @ whole.T).astype(kind), np.arange(5) < len(rows)
            weights = update(Signals(jnp.ones(5, kind), there, gram, None, 0, 0, jax.random.key(0)))
            return np.asarray(weights, np.float64) @ whole

        return one

    return {name: run(weighting) for name, weighting in members.items()}


def of_torchjd() -> Runs:
    import torch
    from torchjd import aggregation as room

    members = {
        "mean": room.Mean(),
        "MGDA": room.MGDA(),
        "UPGrad": room.UPGrad(),
        "DualProj": room.DualProj(),
        "CAGrad 0.4": room.CAGrad(c=0.4),
        "IMTL-G": room.IMTLG(),
        "ConFIG": room.ConFIG(),
        "Aligned-MTL": room.AlignedMTL(),
        "PCGrad": room.PCGrad(),
    }
    makers = {name: (lambda _, one=one: one) for name, one in members.items()}
    makers["Nash-MTL"] = lambda count: room.NashMTL(n_tasks=count, max_norm=0.0)
    if hasattr(room, "FairGrad"):
        makers["FairGrad 2"] = lambda count: room.FairGrad(alpha=2.0)
    if hasattr(room, "GradVac"):
        makers["GradVac"] = lambda count: room.GradVac()
    return {
        name: lambda rows, make=make: make(len(rows))(torch.from_numpy(rows)).detach().numpy()
        for name, make in makers.items()
    }


def of_config() -> Runs:
    import torch
    from conflictfree.grad_operator import ConFIG_update

    torch.set_default_dtype(torch.float64)
    return {"ConFIG": lambda rows: ConFIG_update(torch.from_numpy(rows)).numpy()}


def of_libmtl() -> Runs:
    """LibMTL's classes on linear losses J x, so that the shared parameters' gradients are the rows."""
    import torch

    # Its own start imports networks for pictures, which want a torchvision that is no more.
    found = importlib.util.find_spec("LibMTL")
    sys.modules["LibMTL"] = types.ModuleType("LibMTL")
    sys.modules["LibMTL"].__path__ = list(found.submodule_search_locations)
    from LibMTL import weighting as room

    names = {"mean": "EW", "MGDA": "MGDA", "CAGrad 0.4": "CAGrad", "IMTL-G": "IMTL", "PCGrad": "PCGrad"}
    names |= {"GradVac": "GradVac", "Nash-MTL": "Nash_MTL", "Aligned-MTL": "Aligned_MTL", "FairGrad 2": "FairGrad"}
    settings = {
        "MGDA": {"mgda_gn": "none"},
        "CAGrad 0.4": {"calpha": 0.4, "rescale": 1},
        "GradVac": {"beta": 0.5, "GradVac_beta": 0.5, "GradVac_group_type": 0},
        "Nash-MTL": {"update_weights_every": 1, "optim_niter": 20, "max_norm": 0.0},
        "FairGrad 2": {"FairGrad_alpha": 2.0},
    }

    def run(name: str, made: type) -> Callable[[Rows], Rows]:
        def one(rows: Rows) -> Rows:
            shared = torch.nn.Parameter(torch.ones(rows.shape[1], dtype=torch.float64))
            model = type("Linear", (made,), {"get_share_params": lambda self: [shared]})()
            model.zero_grad_share_params = lambda: shared.grad is not None and shared.grad.zero_()
            model.task_num, model.rep_grad, model.device, model.epoch = len(rows), False, torch.device("cpu"), 0
            model.task_name = [str(task) for task in range(len(rows))]
            model.init_param()
            losses = torch.from_numpy(rows) @ shared
            model.backward(losses, **settings.get(name, {}))
            return shared.grad.numpy().copy()

        return one

    there = {name: getattr(room, own) for name, own in names.items() if hasattr(room, own)}
    return {name: run(name, made) for name, made in there.items()}


WHOSE: dict[str, Callable[[], Runs]] = {
    "ours, 64 bits": lambda: ours(64),
    "ours, 32 bits": lambda: ours(32),
    "TorchJD": of_torchjd,
    "LibMTL": of_libmtl,
    "ConFIG's package": of_config,
}
PACKAGES = {"TorchJD": "torchjd", "LibMTL": "LibMTL", "ConFIG's package": "conflictfree"}


def work(whose: str, path: str) -> None:
    """Writes {"METHOD/SET/number": vector} beside the matrices; a line {method: why it failed} and the versions."""
    warnings.filterwarnings("ignore")
    given, found, failed = np.load(path), {}, {}
    for method, solve in WHOSE[whose]().items():
        for key in given.files:
            if TRUTHS[method][1] and len(given[key]) > 2:
                continue
            try:
                found[f"{method}/{key}"] = solve(given[key])
            except Exception as error:  # a peer that raises is a row, not the end
                failed.setdefault(method, f"{type(error).__name__}: {error}"[:120])
    np.savez(Path(path).with_name(f"{whose}.npz"), **found)
    package = PACKAGES.get(whose)
    print(json.dumps([failed, None if package is None else version(package)]))


def compared(method: str, found: dict[str, Rows], given: dict[str, Rows], truths: dict[str, Rows]) -> dict[str, float]:
    """{set: the largest relative difference}."""
    worst: dict[str, float] = {}
    for key in given:
        vector, truth = found.get(f"{method}/{key}"), truths.get(f"{method}/{key}")
        if vector is None or truth is None:
            continue
        size = np.linalg.norm(truth)
        if TRUTHS[method][2] and np.linalg.norm(vector) > 0:
            vector = vector * size / np.linalg.norm(vector)
        gap = np.linalg.norm(vector - truth) / size if np.isfinite(vector).all() else np.inf
        name = key.split("/")[0]
        worst[name] = max(worst.get(name, 0.0), float(gap))
    return worst


def environment(folder: Path) -> str:
    python = folder / "peers" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "peers"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", PINS], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "LibMTL==1.1.5"], check=True)
    return str(python)


def main(peers: str | None, only: list[str], keep: bool) -> None:
    given = {f"{kind}/{n}": rows for kind, some in matrices().items() for n, rows in enumerate(some)}
    truths = {
        f"{method}/{key}": truth(rows)
        for method, (truth, ordered, _) in TRUTHS.items()
        for key, rows in given.items()
        if not (ordered and len(rows) > 2)
    }
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "matrices.npz"
        np.savez(path, **given)
        peers = peers or environment(Path(place))
        for whose in only:
            python = sys.executable if whose.startswith("ours") else peers
            command = [python, __file__, "--worker", whose, "--data", str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"{whose} could not be run", flush=True)
                continue
            failed, known = json.loads(done.stdout.strip().splitlines()[-1])
            found = dict(np.load(path.with_name(f"{whose}.npz")))
            for method in TRUTHS:
                worst = compared(method, found, given, truths)
                if not worst and method not in failed:
                    continue
                row = {"row": f"{whose}, {method}", "whose": whose, "method": method, "version": known, "worst": worst}
                row |= {"failed": failed.get(method)}
                print(row, flush=True)
                if keep:
                    with RESULTS.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")


def held(path: Path) -> None:
    """The truths against published exact vectors of ordinary matrices."""
    book = json.loads(path.read_text(encoding="utf-8"))
    for method, name in PUBLISHED.items():
        gaps = []
        for entry in book["entries"]:
            rows = np.array(book["matrices"][entry["matrix"]]["J"], float)
            own, plain = entry["params"], entry["matrix"].startswith(("well", "conflict", "positive"))
            wanted = own.get("c", 0.4) == 0.4 and own.get("alpha", 2) == 2 and own.get("max_norm", 0) == 0
            wanted &= str(own.get("pref", "uniform")).startswith("uniform") and own.get("scale_mode", "min") == "min"
            if not (entry["method"] == name and entry["kind"] == "exact" and plain and wanted):
                continue
            if entry.get("undefined") or len(rows) > min(6, rows.shape[1]):
                continue
            vector = np.array(entry["vector"] if "vector" in entry else np.array(entry["weights"]) @ rows)
            gaps.append(np.linalg.norm(TRUTHS[method][0](rows) - vector) / np.linalg.norm(vector))
        print(f"{method}: {len(gaps)} published vectors, at most {max(gaps, default=np.nan):.1e} off")


def render() -> None:
    rows = {}
    for line in RESULTS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["whose"], row["method"]] = row
    whose = [one for one in WHOSE if any(key[0] == one for key in rows)]
    named = {one: next(row["version"] for key, row in rows.items() if key[0] == one) for one in whose}
    print("| method |", " | ".join(f"{one} {named[one] or ''}".strip() for one in whose), "|")
    print("|---" * (1 + len(whose)) + "|")

    def told(row: dict[str, Any] | None) -> str:
        if row is None:
            return "-"
        if row["failed"] and not row["worst"]:
            return f"raises {row['failed'].split(':')[0]}"
        why = f"; raises {row['failed'].split(':')[0]} too" if row["failed"] else ""
        numbers = ", ".join(f"{row['worst'][one]:.0e}" if one in row["worst"] else "raises" for one in SETS)
        equal = not row["failed"] and all(row["worst"].get(one, np.inf) < GOOD for one in SETS)
        return f"{'yes' if equal else 'no'}: {numbers}{why}"

    for method in TRUTHS:
        print(f"| {method} |", " | ".join(told(rows.get((one, method))) for one in whose), "|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="the python of an environment with what peers/audit.txt names")
    parser.add_argument("--only", nargs="+", default=list(WHOSE), choices=list(WHOSE))
    parser.add_argument("--keep", action="store_true", help=f"append to benchmarks/results/{RESULTS.name}")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--reference", type=Path, help="a file of published exact vectors")
    parser.add_argument("--worker", choices=list(WHOSE), help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker, asked.data)
    elif asked.reference:
        held(asked.reference)
    elif asked.render:
        render()
    else:
        main(asked.peers, asked.only, asked.keep)
