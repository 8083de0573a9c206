"""What a weighting costs: of a step with a MiniLM-sized encoder, beside TorchJD's Gram engine, and of one solve.

    nice python benchmarks/weighting_cost.py step --keep                          # K = 2, 4, 8; --repeats 5
    nice python benchmarks/weighting_cost.py peers --peers ENV/bin/python --keep  # `parameters`, and solves, beside TorchJD's
    nice python benchmarks/weighting_cost.py quality --keep                       # Gram matrix at embeddings or parameters
    python benchmarks/weighting_cost.py --render

ENV is made by `python -m venv ENV && ENV/bin/pip install -r benchmarks/peers/audit.txt`. Times are of all cores of a process;
ways take turns, a ratio is within its round, and its median and range are told. A machine that is not quiet spoils them.

step: 6 layers of width 384 with drawn weights over packed texts of the synthetic corpus, K lists losses with a head each. All
methods of the Gram matrix are branches of one compiled step, chosen by an entry of the weighting's state, and so are those of
losses alone; FAMO, whose step has a second forward pass, is its own. Memory is the compiled program's temporaries.
peers: the losses of an MLP of four layers of 512; both take the Gram matrix of all shared parameters, UPGrad's weights, and a
step of SGD; an 8 x 8 Gram matrix to weights, one call and 2,000 under vmap.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results" / "weighting_cost.jsonl"
GRAM = (
    *("mgda", "upgrad", "dualproj", "cagrad", "nash_mtl", "fairgrad", "imtl_g", "config", "aligned_mtl", "sdmgrad"),
    *("pe_ltr", "epo", "pcgrad", "gradvac", "gradnorm"),
)
LOSSES = ("uncertainty", "imtl_l", "dwa", "gls", "rlw", "chebyshev", "smooth_chebyshev")
# Of fewer objectives, some of them.
SOME = ("mgda", "upgrad", "nash_mtl", "uncertainty")
LISTS, ROWS = 16, 2000
ALL_LOSSES = (
    *("softmax", "sigmoid_cross_entropy", "listnet", "pairwise_logistic", "hinge", "lambda_rank", "approx_ndcg"),
    "list_mle",
)
CHANGES = (
    "model.encoder={use: bert, layers: 6, width: 384, heads: 12, dropout: 0.0}",
    "data={use: synthetic, users: 200, items: 288, lists_per_user: 8, list_size: 12, filler: 40}",
    f"batch={{lists: {LISTS}, item_row: 96, user_row: 96}}",
    "model.user={text: '{history.title}'}",
    "evaluate.metrics=[ndcg]",
    "gram_at=embeddings",
)


def made(name: str, count: int) -> Any:
    from mobjrec import weightings

    settings = {"static": ((1.0,) * count,), "pe_ltr": ((0.5 / count,) * count,)}
    return getattr(weightings, name)(*settings.get(name, ()))


class Chosen(NamedTuple):
    """branch: int32 scalar   states: each member's own"""

    branch: Any
    states: Any


def chosen(names: tuple[str, ...], count: int) -> Any:
    """One weighting of these, whose state says which it is."""
    import jax
    import jax.numpy as jnp

    from mobjrec.types import Weighting

    members = [made(name, count) for name in names]

    def branch(at: int) -> Callable[..., Any]:
        def one(signals: Any, states: Any) -> Any:
            weights, after = members[at].update(signals, states[at])
            after = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), after, states[at])
            return weights.astype(jnp.float32), (*states[:at], after, *states[at + 1 :])

        return one

    branches = [branch(at) for at in range(len(members))]

    def update(signals: Any, state: Chosen) -> Any:
        weights, states = jax.lax.switch(state.branch, branches, signals, state.states)
        return weights, Chosen(state.branch, states)

    def init(size: int) -> Chosen:
        return Chosen(jnp.zeros((), jnp.int32), tuple(member.init(size) for member in members))

    return Weighting(init, update, needs_gram=any(member.needs_gram for member in members))


def prepared(count: int, cache: Path) -> tuple[Any, Any]:
    """The parts of a run with K losses and heads, and one of its batches."""
    from mobjrec.config import load
    from mobjrec.data import order
    from mobjrec.data.batching import build
    from mobjrec.parts import assemble, sizes_of
    from mobjrec.shipped import config as shipped

    blocks = [f"o{k}: {{use: single, loss: {ALL_LOSSES[k]}, label: click, head: h{k}}}" for k in range(count)]
    changes = [*CHANGES, f"objectives={{{', '.join(blocks)}}}", "weighting={use: equal}"]
    parts = assemble(load(shipped("quickstart"), changes), cache)
    train = parts.dataset.train
    rows = order.rows(0, 0, len(train.user), LISTS)
    drawn = parts.train_candidates(parts.dataset, train, rows, order.random(0, 0))
    return parts, build(parts.feed, train, rows, drawn, sizes_of(parts, 1)[-1:], 1)[0]


def program(parts: Any, weighting: Any, batch: Any) -> tuple[Any, Any, float]:
    """(compiled step, first state, seconds of compiling)."""
    import jax

    from mobjrec import mesh
    from mobjrec.train import mapped_step

    own, over = parts._replace(weighting=weighting), mesh.make(1)
    state = mesh.place(jax.jit(own.first_state)(), over)
    began = time.process_time()
    compiled = mapped_step(own, over).trace(state, batch).lower().compile()
    return compiled, state, time.process_time() - began


def step(counts: list[int], only: list[str] | None, repeats: int, cache: Path) -> list[dict[str, Any]]:
    import jax
    import jax.numpy as jnp

    rows = []
    for count in counts:
        parts, batch = prepared(count, cache)
        wanted = [name for name in (*GRAM, *LOSSES) if name in (only or (SOME if count < 8 else (*GRAM, *LOSSES)))]
        gram = tuple(name for name in wanted if name in GRAM)
        alone = tuple(name for name in wanted if name in LOSSES)
        makers = {("static",): made("static", count)}
        makers |= {one: chosen(one, count) for one in (gram, alone) if one}
        makers |= {("famo",): made("famo", count)} if only is None or "famo" in only else {}
        ways: dict[str, tuple[Any, Any]] = {}
        memory, compiling = {}, {}
        for names, weighting in makers.items():
            compiled, state, seconds = program(parts, weighting, batch)
            print(f"K = {count}: compiled {', '.join(names)} in {seconds:.0f} s", flush=True)
            for at, name in enumerate(names):
                held = state.weighting_state
                held = held._replace(branch=jnp.int32(at)) if isinstance(held, Chosen) else held
                # The step takes its state away, so each way has one of its own.
                ways[name] = compiled, jax.tree.map(jnp.array, state._replace(weighting_state=held))
                memory[name], compiling[name] = compiled.memory_analysis().temp_size_in_bytes, seconds
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(repeats + 1):
            for name in np.roll(list(ways), number):
                compiled, state = ways[name]
                began = time.process_time()
                state, logs = jax.block_until_ready(compiled(state, batch))
                if number:
                    spent[name].append(time.process_time() - began)
                ways[name] = compiled, state
                assert bool(logs["finite"]), f"{name}: a step was not finite"
            print(f"K = {count}: round {number} of {repeats}", flush=True)
        for name, seconds in spent.items():
            ratio = np.array(seconds) / np.array(spent["static"])
            row = {"table": "step", "row": f"{name}, K = {count}", "method": name, "count": count}
            row |= {"ratio": [float(x) for x in (np.median(ratio), ratio.min(), ratio.max())]}
            row |= {"core_seconds": float(np.median(seconds)), "memory": memory[name] / memory["static"]}
            row |= {"compile_core_seconds": compiling[name], "repeats": repeats, "tokens": int(tokens(batch))}
            rows.append(row)
            print(told_step(row), flush=True)
    return rows


def tokens(batch: Any) -> int:
    return sum(int((one.slot > 0).sum()) for one in (batch.user_texts, batch.item_texts))


def told_step(row: dict[str, Any]) -> str:
    middle, low, high = row["ratio"]
    return f"{row['row']}: {middle:.3f} ({low:.3f} to {high:.3f}), memory {row['memory']:.3f}"


def network(count: int) -> dict[str, np.ndarray]:
    """An MLP's matrices, K heads, and a batch with K targets."""
    random = np.random.default_rng(0)
    sizes = (64, 512, 512, 512, 512)
    found = {f"w{n}": random.normal(size=(a, b)) / np.sqrt(a) for n, (a, b) in enumerate(pairwise(sizes))}
    found |= {"heads": random.normal(size=(512, count)) / 22, "inputs": random.normal(size=(256, 64))}
    found["targets"] = random.normal(size=(256, count))
    return {name: array.astype(np.float32) for name, array in found.items()}


def grams(count: int, size: int) -> np.ndarray:
    random = np.random.default_rng(1)
    rows = random.normal(size=(size, count, 12)) * random.lognormal(0, 0.5, (size, count, 1))
    return np.einsum("nkp,nlp->nkl", rows, rows).astype(np.float32)


def ours(counts: list[int]) -> tuple[dict[str, Callable[[], Any]], dict[str, np.ndarray]]:
    import jax
    import jax.numpy as jnp

    from mobjrec.gram import gram
    from mobjrec.step import mixed
    from mobjrec.types import Signals

    works: dict[str, Callable[[], Any]] = {}
    told: dict[str, np.ndarray] = {}

    def signals(losses: Any, matrix: Any) -> Signals:
        return Signals(losses, jnp.ones(len(losses), bool), matrix, None, 0, 0, jax.random.key(0))

    for count in counts:
        given = network(count)
        inputs, targets = given.pop("inputs"), given.pop("targets")
        weighting = made("upgrad", count)

        def losses(params: Any, inputs: Any = inputs, targets: Any = targets) -> Any:
            hidden = inputs
            for n in range(4):
                hidden = jnp.tanh(hidden @ params[f"w{n}"])
            return jnp.mean((hidden @ params["heads"] - targets) ** 2, axis=0)

        @jax.jit
        def trained(params: Any, losses: Any = losses, weighting: Any = weighting, count: int = count) -> Any:
            values, pull = jax.vjp(losses, params)
            rows = jax.vmap(lambda one: pull(one)[0])(jnp.eye(count))
            matrix = gram({name: leaf for name, leaf in rows.items() if name != "heads"})
            weights, _ = weighting.update(signals(values, matrix), weighting.init(count))
            return jax.tree.map(lambda p, g: p - 1e-3 * g, params, mixed(rows, weights)), matrix

        params = {"now": given}

        def turn(params: dict[str, Any] = params, trained: Any = trained) -> Any:
            params["now"], matrix = jax.block_until_ready(trained(params["now"]))
            return matrix

        told[f"parameters, K = {count}"] = np.asarray(turn())
        works[f"parameters, K = {count}"] = turn
    one, many = grams(8, 1)[0], grams(8, ROWS)
    losses = np.ones(8, np.float32)
    for name in GRAM:
        weighting = made(name, 8)
        state = weighting.init(8)

        def solve(matrix: Any, weighting: Any = weighting, state: Any = state) -> Any:
            return weighting.update(signals(losses, matrix), state)[0]

        single, vector = jax.jit(solve), jax.jit(jax.vmap(solve))
        works[f"solve {name}"] = lambda f=single: [jax.block_until_ready(f(one)) for _ in range(100)]
        works[f"solves {name}"] = lambda f=vector: jax.block_until_ready(f(many))
    return works, told


TORCHJD = {
    **{
        "mgda": "MGDAWeighting",
        "upgrad": "UPGradWeighting",
        "dualproj": "DualProjWeighting",
        "pcgrad": "PCGradWeighting",
    },
    **{"imtl_g": "IMTLGWeighting", "aligned_mtl": "AlignedMTLWeighting", "gradvac": "GradVacWeighting"},
    **{"cagrad": "CAGradWeighting", "nash_mtl": "NashMTLWeighting", "fairgrad": "FairGradWeighting"},
}


def of_torchjd(counts: list[int]) -> tuple[dict[str, Callable[[], Any]], dict[str, np.ndarray]]:
    import torch
    from torchjd import aggregation as room
    from torchjd import autogram

    works: dict[str, Callable[[], Any]] = {}
    told: dict[str, np.ndarray] = {}
    settings = {"cagrad": {"c": 0.4}, "nash_mtl": {"n_tasks": 8}, "fairgrad": {"alpha": 2.0}}
    for count in counts:
        given = network(count)
        layers: list[Any] = []
        for n in range(4):
            linear = torch.nn.Linear(*given[f"w{n}"].shape, bias=False)
            linear.weight.data = torch.from_numpy(given[f"w{n}"].T.copy())
            layers += [linear, torch.nn.Tanh()]
        body, heads = torch.nn.Sequential(*layers), torch.nn.Linear(512, count, bias=False)
        heads.weight.data = torch.from_numpy(given["heads"].T.copy())
        inputs, targets = torch.from_numpy(given["inputs"]), torch.from_numpy(given["targets"])
        engine, weigh = autogram.Engine(body, batch_dim=None), room.UPGradWeighting()
        descent = torch.optim.SGD([*body.parameters(), *heads.parameters()], lr=1e-3)

        def turn(body=body, heads=heads, inputs=inputs, targets=targets, engine=engine, weigh=weigh, descent=descent):
            descent.zero_grad()
            losses = ((heads(body(inputs)) - targets) ** 2).mean(dim=0)
            matrix = engine.compute_gramian(losses)
            losses.backward(weigh(matrix))
            descent.step()
            return matrix

        told[f"parameters, K = {count}"] = turn().detach().numpy()
        works[f"parameters, K = {count}"] = turn
    one = torch.from_numpy(grams(8, 1)[0])
    for name, own in TORCHJD.items():
        if hasattr(room, own):
            solve = getattr(room, own)(**settings.get(name, {}))
            works[f"solve {name}"] = lambda f=solve: [f(one) for _ in range(100)]
    return works, told


WHOSE = {"ours": ours, "TorchJD": of_torchjd}


def work(whose: str, counts: list[int], path: str) -> None:
    """Leaves the Gram matrices at PATH; a line of names, then for each name read [seconds of all cores, of the wall]."""
    works, told = WHOSE[whose](counts)
    for function in works.values():
        function()
    np.savez(path, **told)
    print(json.dumps(list(works)), flush=True)
    for line in sys.stdin:
        cores, wall = time.process_time(), time.perf_counter()
        works[line.strip()]()
        print(json.dumps([time.process_time() - cores, time.perf_counter() - wall]), flush=True)


def asked_of(process: subprocess.Popen, name: str = "") -> Any:
    if name:
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a worker ended; what it said stands above")
    return json.loads(line)


def peers(python: str, counts: list[int], repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        workers, names = {}, {}
        for whose in WHOSE:
            command = [sys.executable if whose == "ours" else python, __file__, "--worker", whose, "--counts"]
            command += [*map(str, counts), "--data", str(Path(folder) / f"{whose}.npz")]
            workers[whose] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            names[whose] = asked_of(workers[whose])
            print(f"{whose} is ready", flush=True)
        mine, theirs = (np.load(Path(folder) / f"{whose}.npz") for whose in WHOSE)
        apart = {name: float(np.abs(mine[name] / theirs[name] - 1).max()) for name in mine.files}
        spent: dict[str, dict[str, list[list[float]]]] = {name: {} for name in names["ours"]}
        for number in range(repeats):
            for name in names["ours"]:
                for whose in np.roll([one for one in WHOSE if name in names[one]], number):
                    spent[name].setdefault(str(whose), []).append(asked_of(workers[whose], name))
            print(f"round {number + 1} of {repeats}", flush=True)
        for process in workers.values():
            process.stdin.close()
            process.wait()
    rows = []
    for name, took in spent.items():
        each = 100 if name.startswith("solve ") else ROWS if name.startswith("solves") else 1
        times = {whose: np.array(seconds) / each for whose, seconds in took.items()}
        row = {"table": "peers", "row": name, "repeats": repeats, "apart": apart.get(name)}
        row |= {"core_seconds": {whose: float(np.median(one[:, 0])) for whose, one in times.items()}}
        row |= {"wall_seconds": {whose: float(np.median(one[:, 1])) for whose, one in times.items()}}
        if "TorchJD" in times:
            ratio = times["ours"][:, 0] / times["TorchJD"][:, 0]
            row["ratio"] = [float(x) for x in (np.median(ratio), ratio.min(), ratio.max())]
        rows.append(row)
        print(row, flush=True)
    return rows


def quality(names: list[str], seeds: int, cache: Path) -> list[dict[str, Any]]:
    """Test metrics of the quickstart's small BERT, by where the gradients are compared."""
    from mobjrec import train
    from mobjrec.config import load
    from mobjrec.shipped import config as shipped

    rows = []
    for name in names:
        for place in ("embeddings", "parameters"):
            for seed in range(seeds):
                changes = [f"weighting={{use: {name}}}", f"gram_at={place}", f"seed={seed}"]
                with tempfile.TemporaryDirectory() as folder:
                    began = time.process_time()
                    found = train.run(load(shipped("quickstart"), changes), Path(folder) / "run", cache, quiet=True)
                own = {key: one["after"] for key, one in found["table"].items() if one["own"]}
                row = {"table": "quality", "row": f"{name}, {place}, {seed}", "method": name, "place": place}
                rows.append(row | {"seed": seed, "found": own, "core_seconds": time.process_time() - began})
                print(rows[-1], flush=True)
    return rows


def render() -> None:
    rows = {}
    for line in RESULTS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["table"], row["row"]] = row
    steps = [row for (table, _), row in rows.items() if table == "step"]
    counts = sorted({row["count"] for row in steps})
    if steps:
        print("| step / step of fixed weights |", " | ".join(f"K = {count}" for count in counts), "| memory |")
        print("|---" * (2 + len(counts)) + "|")
        for name in dict.fromkeys(row["method"] for row in steps):
            own = {row["count"]: row for row in steps if row["method"] == name}
            cells = [
                "{:.3f} ({:.3f} to {:.3f})".format(*own[count]["ratio"]) if count in own else "-" for count in counts
            ]
            print(f"| {name} |", " | ".join(cells), f"| {max(row['memory'] for row in own.values()):.3f} |")
    for kind, title in (("parameters", "one step, ms"), ("solve ", "8 x 8 to weights, ms")):
        found = [row for (table, name), row in rows.items() if table == "peers" and name.startswith(kind)]
        if found:
            print(f"\n| {title} | ours | TorchJD | ours / TorchJD | ours under vmap, a second |\n|---|---|---|---|---|")
        for row in found:
            took = row["core_seconds"]
            ratio = "{:.3f} ({:.3f} to {:.3f})".format(*row["ratio"]) if "ratio" in row else "-"
            theirs = f"{1e3 * took['TorchJD']:.3f}" if "TorchJD" in took else "-"
            many = rows.get(("peers", row["row"].replace("solve ", "solves ")))
            rate = f"{1 / many['core_seconds']['ours']:,.0f}" if kind == "solve " and many else "-"
            print(f"| {row['row'].removeprefix('solve ')} | {1e3 * took['ours']:.3f} | {theirs} | {ratio} | {rate} |")
    found = [row for (table, _), row in rows.items() if table == "quality"]
    if found:
        keys = list(found[0]["found"])
        print("\n| gradients compared at |", " | ".join(keys), "|")
        print("|---" * (1 + len(keys)) + "|")
        for name, place in dict.fromkeys((row["method"], row["place"]) for row in found):
            own = [row["found"] for row in found if (row["method"], row["place"]) == (name, place)]
            cells = [
                f"{np.mean([one[key] for one in own]):.3f} ± {np.std([one[key] for one in own]):.3f}" for key in keys
            ]
            print(f"| {name}, {place} |", " | ".join(cells), "|")


def machine() -> dict[str, Any]:
    return {
        "load": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "jax": version("jax"),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("step", "peers", "quality"))
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8], help="numbers of objectives")
    parser.add_argument("--only", nargs="+", help="methods")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2, help="of quality")
    parser.add_argument("--peers", help="the python of an environment with what peers/audit.txt names")
    parser.add_argument("--keep", action="store_true", help=f"append to benchmarks/results/{RESULTS.name}")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--worker", choices=list(WHOSE), help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.counts, given.data)
    elif given.render:
        render()
    elif given.what == "peers" and not given.peers:
        parser.error("--peers is missing")
    elif given.what:
        with tempfile.TemporaryDirectory() as place:
            found = {
                "step": lambda: step(given.counts, given.only, given.repeats, Path(place)),
                "peers": lambda: peers(given.peers, given.counts, given.repeats),
                "quality": lambda: quality(given.only or ["mgda", "upgrad", "nash_mtl"], given.seeds, Path(place)),
            }[given.what]()
        if given.keep:
            with RESULTS.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row | machine()) + "\n" for row in found)
    else:
        parser.error("say step, peers, quality or --render")
