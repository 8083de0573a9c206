"""The tables of docs/weightings.md, from results/weightings.jsonl alone: python benchmarks/weighting_tables.py"""

from typing import NamedTuple

import numpy as np
from weightings import BENCHES, MEMBERS, SPLITS, TRAINED, known_runs

from mobjrec import fronts


class Row(NamedTuple):
    """What a row reaches on the test split, seed by seed. own: [S, K] each head on its own label   gain: [S] mean relative gain

    over single-objective runs   one, mixed: [S] hypervolume of equal preferences, and of all, mixed at request   cpu: seconds
    """

    own: np.ndarray
    gain: np.ndarray
    one: np.ndarray
    mixed: np.ndarray
    cpu: float


def table(name: str, runs: dict[tuple[str, str, int], dict]) -> tuple[list[str], dict[str, Row]]:
    """(objectives, rows) of a data set, over the seeds that have all single-objective runs."""
    chance = runs[(name, "random", 0)]
    objectives, random = chance["objectives"], np.array(chance["test"][0])
    alone = {
        seed: [runs[(name, f"single {one}", seed)] for one in objectives]
        for seed in range(100)
        if all((name, f"single {one}", seed) in runs for one in objectives)
    }
    if not alone:
        return objectives, {}
    count = len(objectives)
    own = {
        split: {s: np.array([r[split][k][k] for k, r in enumerate(a)]) for s, a in alone.items()} for split in SPLITS
    }
    best = np.mean(list(own["test"].values()), axis=0)

    def gain(run: dict, split: str, seed: int) -> float:
        return float(np.mean(np.diag(run[split]) / own[split][seed]) - 1)

    def row(of: dict[int, dict]) -> Row:
        ordered = {seed: np.array(run["test"]) for seed, run in of.items()}
        return Row(
            np.array([np.diag(one) for one in ordered.values()]),
            np.array([gain(run, "test", seed) for seed, run in of.items()]),
            np.array(
                [
                    fronts.reached(one[count : count + 1], random, best) if len(one) > count else np.nan
                    for one in ordered.values()
                ]
            ),
            np.array([fronts.reached(one, random, best) for one in ordered.values()]),
            float(np.median([run["cpu"] for run in of.values()])),
        )

    # Of a run for each objective: the orderings by its own head alone.
    corners = {
        seed: {"test": [a[k]["test"][k] for k in range(count)], "cpu": sum(run["cpu"] for run in a)}
        for seed, a in alone.items()
    }
    found = {"single-objective runs, one each": row(corners)}
    for member in MEMBERS:
        of = {seed: runs[(name, member, seed)] for seed in alone if (name, member, seed) in runs}
        if of:
            found["equal (the plain multi-head model)" if member == "equal" else member] = row(of)
    tuned = {}
    for seed in alone:
        tries = [
            run for (there, label, s), run in runs.items() if there == name and s == seed and label.startswith("fixed ")
        ]
        if tries:
            tuned[seed] = max(tries, key=lambda run: gain(run, "valid", seed))
    if tuned:
        found[f"fixed weights, best of {len(MEMBERS)} on validation"] = row(tuned)
    return objectives, found


def rendered() -> str:
    """The tables in Markdown."""
    runs, out = known_runs(), []
    for name in BENCHES:
        if (name, "random", 0) not in runs:
            continue
        objectives, rows = table(name, runs)
        if not rows:
            continue
        metrics = [f"{one} {BENCHES[name].objectives[one]}" for one in objectives]
        head = ["weighting", *metrics, "mean gain, %", "HV, equal", "HV, mixed", "CPU ÷ equal", "seeds"]
        out += [f"| {name}: {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
        plain = next((row.cpu for label, row in rows.items() if label.startswith("equal")), float("nan"))
        for label, row in rows.items():
            cells = [spread(column) for column in row.own.T]
            cells += [spread(100 * row.gain, 2), spread(row.one), spread(row.mixed)]
            cells += [f"{row.cpu / plain:.2f}", str(len(row.own))]
            out.append(f"| {label} | {' | '.join(cells)} |")
        out.append("")
    objectives = runs.get(("ml-100k", "random", 0), {}).get("objectives", [])
    trained = {
        member: [np.diag(run["test"]) for (one, label, _), run in runs.items() if (one, label) == ("trained", member)]
        for member in TRAINED
    }
    if any(trained.values()):
        head = ["weighting", *objectives, "seeds"]
        out += [f"| MiniLM's last two layers: {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for member, found in trained.items():
        if found:
            out.append(f"| {' | '.join([member, *map(spread, np.array(found).T), str(len(found))])} |")
    return "\n".join(out)


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Mean and deviation over seeds."""
    if np.isnan(values).any():
        return "–"
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


if __name__ == "__main__":
    print(rendered())
