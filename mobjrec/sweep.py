"""`mobjrec sweep`: one config trained for many preferences, each run in a folder of its own, and the front of them all."""

import inspect
import json
import math
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from mobjrec import chart, checkpoint, fronts, mesh, record, resume, swept, together, train
from mobjrec.config import Config, dump, plain
from mobjrec.defaults import compared_at, parse, settled
from mobjrec.errors import RunFolderError, UserError
from mobjrec.frozen import with_store
from mobjrec.lookup import lookup, names
from mobjrec.pareto import simplex
from mobjrec.parts import Parts, assemble
from mobjrec.preferences import reads
from mobjrec.problems import nearest
from mobjrec.reading import warn_of
from mobjrec.stopping import stopping

# Weightings that are their preference: in a sweep each is `preferred`.
LINEAR = ("static", "equal", "preferred")
PLAIN = "plain"
Wish = Mapping[str, float]


def run(
    config: Config,
    folder: Path,
    cache: Path,
    preferences: int | Sequence[Wish] = 11,
    *,
    metrics: Mapping[str, str] | None = None,
    one_by_one: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train the config for each preference into `folder / pNN`, and a plain model of equal weights into `folder / plain`.

    preferences: so many evenly over all (see `pareto.simplex`), or {objective: number} each   metrics: {objective: its
    metric}, the config's first one by default
    Where no text encoder trains, all are trained in one program; else, and one_by_one, one after another. Goes on where
    it stopped. Returns what `swept.measured` gives, which `swept.write` leaves in the folder. UserError before anything
    is trained for preferences that are none, a weighting that knows no preference, and metrics without a trade-off between
    them; otherwise as `train.run`.
    """
    config = settled(config)
    wishes = wished(tuple(config.objectives), preferences)
    runs = {f"p{number:02d}": wish for number, wish in enumerate(wishes.tolist())}
    asked, configs = asking(config), {name: told(config, wish) for name, wish in runs.items()}
    with record.open(folder, dump(config)) as log, stopping(at_once=True):
        resume.check(log.previous, config, log.folder)
        _same(log.folder, runs, list(config.objectives))
        began = time.monotonic()
        mesh.keep_compilations(cache / "compiled")
        parts = assemble(asked, cache)
        columns = swept.columns_of(parts, metrics)
        found = swept.read(log.folder)
        if found is not None and not resume.changes(log.previous, config) and swept.measures(found, columns):
            return found
        for split in swept.SPLITS:
            # What cannot be measured is told before hours of training.
            fronts.random_point(parts, split, metrics=columns)
        record.replaced(log.folder / "preferences.json", json.dumps(runs, indent=1))
        seal = checkpoint.sealed(log.folder / together.STACK, files=True)
        log.start(seal["step"] if seal else 0)
        warn_of(config, parts.objectives, parts.dataset)
        first = parts.first_state()
        parts = with_store(parts, first.params)
        log.timed({"prepare": time.monotonic() - began})
        base = trained(log, parts, config, configs, wishes, cache, one_by_one, quiet)
        found = swept.measured(parts, log.folder, runs, base, columns)
        swept.write(log.folder, found, chart.drawn(found))
        return found


def trained(
    log: record.Record,
    parts: Parts,
    config: Config,
    configs: Mapping[str, Config],
    wishes: np.ndarray,
    cache: Path,
    one_by_one: bool,
    quiet: bool,
) -> str:
    """Train all runs, and the plain one where none of them is it; the plain one's name."""
    linear, alike = config.weighting.use in LINEAR, np.full((1, wishes.shape[1]), 1 / wishes.shape[1])
    equal = np.flatnonzero(np.isclose(wishes, alike).all(axis=1)) if linear else []
    base = list(configs)[equal[0]] if len(equal) else PLAIN
    more = {} if base != PLAIN else {PLAIN: told(config, alike[0].tolist(), plainly=True)}
    left = dict(configs) | more
    if not one_by_one and fits(parts):
        # The plain one is one more preference of weights that are preferences; beside others it is a run of its own.
        stacked = left if linear else dict(configs)
        together.run(log, parts, stacked, np.concatenate([wishes, alike[: len(stacked) - len(wishes)]]), quiet)
        left = {name: one for name, one in left.items() if name not in stacked}
    for name, one in left.items():
        train.run(one, log.folder / name, cache, quiet=quiet)
    return base


def fits(parts: Parts) -> bool:
    """Whether one program can train all runs: no text encoder trains, and the weighting follows the step's preference."""
    return compared_at(parts.model) == "parameters" and reads(parts.weighting, len(parts.objectives))


def wished(objectives: tuple[str, ...], preferences: int | Sequence[Wish]) -> np.ndarray:
    """The preferences [P, K] over their sums. UserError for what is none, fewer than two, and one that comes twice."""
    if len(objectives) < 2:
        raise UserError(f"a sweep is over preferences between objectives, and this config has only {objectives[0]}")
    if isinstance(preferences, int):
        if preferences < max(2, len(objectives)):
            raise UserError(
                f"{preferences} preferences are too few: a sweep over {len(objectives)} objectives takes at least "
                f"{max(2, len(objectives))}"
            )
        return simplex(preferences, len(objectives))
    if len(preferences) < 2:
        raise UserError(f"a sweep takes at least 2 preferences, not {len(preferences)}; give more, or a number of them")
    found = np.array([shares(objectives, wish, f"preference {at}") for at, wish in enumerate(preferences, 1)])
    for at, wish in enumerate(found):
        twin = np.flatnonzero(np.isclose(found[:at], wish).all(axis=1))
        if len(twin):
            raise UserError(f"preferences {twin[0] + 1} and {at + 1} are the same, as only shares count; leave one out")
    return found


def shares(objectives: Sequence[str], wish: Wish, what: str) -> list[float]:
    """A preference over its sum, in the order of the objectives, 0 for those not named. UserError where it is none."""
    if not isinstance(wish, Mapping) or not all(isinstance(value, Real) for value in wish.values()):
        raise UserError(f"{what} is {wish!r:.80}; give a number for each of {', '.join(objectives)}")
    for name in wish:
        if name not in objectives:
            raise UserError(f"{what}: there is no objective {name}{nearest(name, objectives, what='objectives')}")
    total = math.fsum(wish.values())
    if not all(0 <= value < math.inf for value in wish.values()) or not 0 < total < math.inf:
        raise UserError(f"{what} is {dict(wish)}; its numbers must be finite, not negative, and not all 0")
    return [float(wish.get(name, 0.0)) / total for name in objectives]


def told(config: Config, wish: Sequence[float], plainly: bool = False) -> Config:
    """The config of one run: its weighting at this preference; plainly: the weighted sum at it, whatever the weighting."""
    data, named = plain(config), dict(zip(config.objectives, wish, strict=True))
    data["weighting"] = {"use": "preferred", "preference": named} if plainly else at(data["weighting"], named)
    return parse(data)


def asking(config: Config) -> Config:
    """The config whose weighting follows the step's preference. UserError where there is no such weighting."""
    if config.preference is not None:
        raise UserError(
            "this config draws a preference for each step (preference), so one run learns the whole front: train it, and walk "
            "the front by `mobjrec rank --prefer`; a sweep is for models without"
        )
    data = plain(config)
    block = at(data["weighting"], {})
    if block is None:
        raise UserError(
            f"weighting {config.weighting.use} takes no preference, so that all runs of a sweep would be one; those that do "
            f"are {', '.join(sorted(LINEAR + taking()))}"
        )
    return parse(data | {"weighting": block})


def at(block: Mapping[str, Any], preference: Wish) -> dict[str, Any] | None:
    """A complete weighting block at a preference, {} being the step's; None where it takes none."""
    if block["use"] in LINEAR:
        return {"use": "preferred", "preference": preference}
    if "preference" in block:
        return {**block, "preference": preference}
    inner = at(block["of"], preference) if isinstance(block.get("of"), Mapping) else None
    return None if inner is None else {**block, "of": inner}


def taking() -> tuple[str, ...]:
    """The weightings of ours that have a setting `preference`."""
    signatures = {name: inspect.signature(lookup("weighting", name)).parameters for name in names("weighting")}
    return tuple(name for name, one in signatures.items() if "preference" in one and name not in LINEAR)


def _same(folder: Path, runs: Mapping[str, Sequence[float]], objectives: Sequence[str]) -> None:
    """RunFolderError where the folder holds a sweep of other preferences, or what is no sweep."""
    path = folder / "preferences.json"
    if not path.is_file():
        if (folder / "config.yaml").is_file():
            raise RunFolderError(f"{folder} holds a run that is no sweep; name another folder (--run)")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged; put it back, or sweep into another folder (--run)") from error
    if list(before) != list(runs) or not all(np.allclose(before[name], runs[name]) for name in runs):
        some = ", ".join(
            f"{name}={share:.3g}" for name, share in zip(objectives, next(iter(before.values())), strict=True)
        )
        raise RunFolderError(
            f"{folder} holds a sweep over {len(before)} other preferences, the first of which is {some}; give those, or "
            "another folder (--run)"
        )
