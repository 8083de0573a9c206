"""What each piece of work takes, ours and others' in turns, once their first losses are equal; the goals beside it.

    python benchmarks/speed.py                       # every row: about two hours on 2 cores
    python benchmarks/speed.py --only fine-tuning    # the rows whose name holds this
    python benchmarks/speed.py --render              # the table, of what was measured last
    python benchmarks/speed.py --tiny --rounds 1     # whether all of it runs, in minutes; nothing is written

Peers run in environments of their own, made once from benchmarks/peers/*.txt under `--peers`. Each worker is a process that
waits while another works. Rates are ours over theirs, above 1 being faster: the median over the rounds and their range, by
the wall and by the time of all cores. Rows are appended to results/speed.jsonl. What a weighting costs beside TorchJD is
benchmarks/weighting_cost.py's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "workers"))

from number_rows import NUMBER_ROWS
from text_rows import TEXT_ROWS
from turns import Run

ROWS = {**TEXT_ROWS, **NUMBER_ROWS}
RESULTS = Path(__file__).parent / "results" / "speed.jsonl"


def write(row: dict, keep: bool) -> None:
    print(json.dumps(row), flush=True)
    if keep:
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def machine() -> dict:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    about = {"machine": platform.machine(), "cores": os.cpu_count(), "commit": commit.stdout.strip()}
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return about | {"processor": names[0] if names else platform.processor()}


def render() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    last = {(row["row"], row["what"]): row for row in rows}
    print("| on the same work | ours | theirs | by the wall | by all cores | goal |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in ROWS:
        for row in [row for (mine, _), row in last.items() if mine == name]:
            cells = [row.get(side, "–") for side in ("ours", "theirs")]
            cells += [ratio(row.get("ratio", {}).get(how)) for how in ("wall", "cores")]
            print(f"| {row['what']} | " + " | ".join(map(str, cells)) + f" | {row['goal']} |")


def ratio(found: list[float] | None) -> str:
    return "–" if found is None else f"**{found[0]:.2f}** ({found[1]:.2f}–{found[2]:.2f})"


def main(only: str, run: Run, keep: bool) -> None:
    about = machine()
    for name, work in ROWS.items():
        if only not in name:
            continue
        before = os.getloadavg()[0]
        for row in work(run):
            write({"row": name, **row, **about, "load": round(before, 1)}, keep)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"rows whose name holds this: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="ours: data, weights, compilations (default: that of mobjrec)")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments (default: peers/ in the cache)")
    parser.add_argument("--ml-1m", type=Path, help="IR-Benchmark's folder movielens-1m, for its row")
    parser.add_argument("--tiny", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--render", action="store_true", help="print the table of what was measured")
    given = parser.parse_args()
    if given.render:
        render()
    else:
        from mobjrec.data.download import cache_folder

        cache = given.cache or cache_folder()
        with tempfile.TemporaryDirectory() as folder:
            run = Run(cache, given.peers or cache / "peers", Path(folder), given.rounds, given.tiny, given.ml_1m)
            main(given.only, run, keep=not given.tiny)
