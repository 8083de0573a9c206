"""A sweep's picture: its runs and the plain model mixed at request time, for each pair of columns, as an SVG file."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

WIDTH, HEIGHT = 360, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 52
# Legible on white and on black; the media query turns text and lines.
STYLE = """
text{font:12px sans-serif;fill:#333}.axis{stroke:#999;fill:none}.back{fill:#fff}
.sweep{stroke:#d55e00}text.sweep,circle.sweep{fill:#d55e00}.plain{stroke:#0072b2}text.plain{fill:#0072b2}.random{fill:#777}
circle.plain{fill:none;stroke-width:1.5}.line{fill:none;stroke-width:1.5}.off{fill-opacity:.25;stroke-opacity:.5}text.sweep,text.plain{stroke:none}
@media (prefers-color-scheme:dark){text{fill:#ddd}.axis{stroke:#777}.back{fill:#111}.random{fill:#aaa}
.plain{stroke:#56b4e9}text.plain{fill:#56b4e9}.sweep{stroke:#f0883e}text.sweep,circle.sweep{fill:#f0883e}}
"""


def drawn(found: Mapping[str, Any]) -> str:
    """The test points of `swept.measured`, a panel for each pair of columns; what is off the front is pale."""
    columns = list(found["columns"].items())
    pairs = list(combinations(range(len(columns)), 2))
    across = min(len(pairs), 3)
    down = -(-len(pairs) // across)
    panels = [
        f'<g transform="translate({n % across * WIDTH} {n // across * HEIGHT})">{_panel(found, columns, *pair)}</g>'
        for n, pair in enumerate(pairs)
    ]
    size = across * WIDTH, down * HEIGHT + 24
    legend = (
        f'<g transform="translate({LEFT} {size[1] - 12})"><text class="sweep">&#9679; a run for each preference</text>'
        '<text class="plain" y="0" x="176">&#9675; one plain model, mixed</text></g>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" role="img">',
            "<title>What each preference reaches on test lists</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{size[0]}" height="{size[1]}"/>',
            *panels,
            legend,
            "</svg>\n",
        ]
    )


def _panel(found: Mapping[str, Any], columns: Sequence[tuple[str, str]], first: int, second: int) -> str:
    names = list(found["runs"])
    sets = {
        "plain": np.array(found["plain"]["test"])[:, [first, second]],
        "sweep": np.array([run["test"] for run in found["runs"].values()])[:, [first, second]],
    }
    chance = np.array(found["random"]["test"])[[first, second]]
    every = np.concatenate([*sets.values(), chance[None]])
    low, high = every.min(axis=0), every.max(axis=0)
    room = np.where(high > low, 0.06 * (high - low), 0.5)
    low, high = low - room, high + room

    def at(point: np.ndarray) -> tuple[float, float]:
        x, y = (point - low) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - y)

    drawn = [f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>', *_ticks(low, high)]
    for row, points in sets.items():
        kept = [n for n, name in enumerate(names) if name in found["front"][row]]
        order = sorted(kept, key=lambda n, points=points: tuple(points[n]))
        path = " ".join("{:.1f},{:.1f}".format(*at(points[n])) for n in order)
        drawn.append(f'<polyline class="{row} line" points="{path}"/>')
        for n, name in enumerate(names):
            x, y = at(points[n])
            told = escape(f"{name if row == 'sweep' else found['plain']['run']}: {_wish(found['runs'][name])}")
            pale = "" if n in kept else " off"
            size = 4 if row == "sweep" else 7
            drawn.append(
                f'<circle class="{row}{pale}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"><title>{told}</title></circle>'
            )
    x, y = at(chance)
    drawn.append(
        f'<circle class="random" cx="{x:.1f}" cy="{y:.1f}" r="5"/><text x="{x + 9:.1f}" y="{y - 6:.1f}">random</text>'
    )
    (name, key), (other, over) = columns[first], columns[second]
    middle, below, beside = (LEFT + WIDTH - RIGHT) // 2, escape(_axis(name, key)), escape(_axis(other, over))
    drawn.append(
        f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">{below}</text><text x="8" y="18">{beside}</text>'
    )
    return "".join(drawn)


def _ticks(low: np.ndarray, high: np.ndarray) -> list[str]:
    drawn = []
    for value in _round(low[0], high[0]):
        x = LEFT + (WIDTH - LEFT - RIGHT) * (value - low[0]) / (high[0] - low[0])
        drawn.append(f'<text x="{x:.0f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:.5g}</text>')
    for value in _round(low[1], high[1]):
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low[1]) / (high[1] - low[1])
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{value:.5g}</text>')
    return drawn


def _round(low: float, high: float) -> np.ndarray:
    """Two to six round numbers between low and high."""
    power = 10.0 ** np.floor(np.log10((high - low) / 5))
    step = next(power * times for times in (1, 2, 5, 10) if (high - low) / (power * times) <= 5)
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0


def _axis(name: str, key: str) -> str:
    """An objective and its metric: "click/ndcg@5", or "recall: click/recall@5" where its label has another name."""
    return key if key.startswith(f"{name}/") else f"{name}: {key}"


def _wish(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={share:.3g}" for name, share in run["preference"].items())
