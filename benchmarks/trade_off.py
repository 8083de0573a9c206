"""The picture in the README: what one trained quickstart model reaches when its objectives are mixed at request time, beside
the true trade-off curve of the synthetic corpus.

    python benchmarks/trade_off.py runs/quickstart docs/trade_off.svg
"""

import sys
from pathlib import Path

import numpy as np

import mobjrec
from mobjrec import evaluate
from mobjrec.data.readers.oracle import trade_off

TOP = 3
SHARES = np.linspace(0, 1, 11)


def reached(run, read) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """(click, satisfaction) expected of the first items for each share of click in the mixture; and of a random order."""
    parts, lists = run.parts, run.parts.dataset.test
    told = {"click": [], "satisfaction": []}
    means = {"click": [], "satisfaction": []}
    for block in evaluate.blocks(parts, run.params, run.memory, lists, parts.eval_candidates):
        real = block.rows >= 0
        known = parts.corpus.best.best(parts.dataset, lists, np.maximum(block.rows, 0), block.drawn.item, read)
        for name in told:
            told[name].append(block.predictions[name][real])
            means[name].append(known[name][real])
    told, means = ({name: np.concatenate(parts) for name, parts in kind.items()} for kind in (told, means))
    scaled = {name: (score - run.scale[name][0]) / run.scale[name][1] for name, score in told.items()}

    def values(score: np.ndarray) -> tuple[float, float]:
        first = np.argsort(-score, 1, kind="stable")[:, :TOP]
        return tuple(float(np.take_along_axis(means[name], first, 1).mean()) for name in ("click", "satisfaction"))

    mixed = [values(share * scaled["click"] + (1 - share) * scaled["satisfaction"]) for share in SHARES]
    return mixed, values(np.random.default_rng(0).random(told["click"].shape))


def drawn(best: list, model: list, chance: tuple) -> str:
    """The curves as an SVG of 640 x 400."""
    points = np.array([*best, *model, chance])
    low, high = points.min(0), points.max(0)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)

    def at(point) -> tuple[float, float]:
        x, y = (np.asarray(point) - low) / (high - low)
        return 70 + 540 * x, 340 - 310 * y

    def line(curve, colour: str, dash: str = "") -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, curve))
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in map(at, curve))
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>{dots}'

    def label(x: float, y: float, text: str, colour: str = "#444", anchor: str = "start", turn: str = "") -> str:
        return (
            f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" font-size="13" text-anchor="{anchor}" {turn}>{text}</text>'
        )

    ticks = ""
    for share in np.linspace(0, 1, 5):
        x, y = low + share * (high - low)
        ticks += label(70 + 540 * share, 358, f"{x:.2f}", anchor="middle") + label(
            64, 344 - 310 * share, f"{y:.2f}", anchor="end"
        )
    x, y = at(chance)
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400" font-family="sans-serif" role="img">',
            "<title>Click and satisfaction of the first three items, by preference</title>",
            '<rect width="640" height="400" fill="white"/>',
            '<path d="M70 30V340H610" fill="none" stroke="#888"/>',
            ticks,
            line(best, "#0072b2", "6 4"),
            line(model, "#d55e00"),
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#666"/>',
            label(x + 9, y + 4, "random order"),
            label(330, 388, f"expected clicks per item, first {TOP}", anchor="middle"),
            label(16, 185, "expected satisfaction, stars", anchor="middle", turn='transform="rotate(-90 16 185)"'),
            label(200, 200, "best possible (exact)", "#0072b2"),
            label(200, 222, "one trained model, mixed at request time", "#d55e00"),
            "</svg>",
        ]
    )


def main(folder: str, out: str) -> None:
    run = mobjrec.load(folder)
    parts = run.parts
    read = parts.corpus.best.told(parts.feed, parts.inputs, parts.tokenizer, parts.config.lists.history.of)
    if isinstance(read, str):
        sys.exit(f"no best possible order is known: {read}")
    model, chance = reached(run, read)
    best = trade_off(parts.corpus.best, parts.dataset, parts.dataset.test, SHARES, TOP, read)
    print("share of click | model: click, stars | best: click, stars")
    for share, mine, known in zip(SHARES, model, best, strict=True):
        print(f"{share:.1f} | {mine[0]:.3f} {mine[1]:.3f} | {known[0]:.3f} {known[1]:.3f}")
    print(f"random order | {chance[0]:.3f} {chance[1]:.3f}")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(drawn(best, model, chance), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
