"""Going on with a run: whether the folder's config is this one, where the state comes from, what a seal says."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mobjrec import checkpoint, choice, mesh
from mobjrec.config import Config, Evaluate, parse_text, plain
from mobjrec.data.store import key_of
from mobjrec.errors import RunFolderError, UserError
from mobjrec.link import Link
from mobjrec.parts import Parts
from mobjrec.problems import nearest
from mobjrec.state import TrainState
from mobjrec.types import Tree

# Keys that change what is written or how fast, never the parameters. Of data their content counts, not where they lie.
HARMLESS = (
    "save",
    "parallel",
    "views",
    "non_finite_limit",
    "unsolved",
    "evaluate.every",
    "evaluate.lists",
    "evaluate.patience",
    "lists.strict",
    "epochs",
    "steps",
    "data.path",
)
# What marks a folder of many runs, what it is, and its first run.
MANY = {"preferences.json": ("sweep", "p00"), "search.json": ("search", "trial-000")}


def changes(previous: str | None, config: Config) -> dict[str, tuple[Any, Any]]:
    """{key: (there, now)} of the keys in which this config is not the folder's; {} for a new run."""
    if previous is None:
        return {}
    before, now = flat(plain(parse_text(previous))), flat(plain(config))
    pairs = {key: (before.get(key), now.get(key)) for key in sorted(before.keys() | now.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def check(
    previous: str | None, config: Config, folder: Path, accepted: Sequence[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Those of the keys that differ which are `accepted`, or stand below one that is; not the harmless ones.

    RunFolderError where the folder was trained with another config, naming every other key that differs. UserError where
    an accepted key is none.
    """
    if previous is None:
        return {}
    old, new, differing = plain(parse_text(previous)), plain(config), changes(previous, config)
    before, now = flat(old), flat(new)
    for name in accepted:
        if not any(below(key, name) for key in before.keys() | now.keys()):
            raise UserError(f"--override-resume {name}: there is no such key{nearest(name, sorted(now))}")
    free = lambda key: any(below(key, name) for name in accepted)
    harmful = [key for key in differing if not any(below(key, name) for name in HARMLESS)]
    # A schedule that reads the total would take another course with another number of steps.
    if any(key in ("epochs", "steps") for key in differing) and now.get("optimizer.schedule", "constant") != "constant":
        harmful += [key for key in ("epochs", "steps") if key in differing]
    overridden = {key: differing[key] for key in harmful if free(key)}
    lines = [f"  {key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in telling(harmful) if not free(key)]
    lines += [
        f"  order of {key}: {', '.join(names)} there, {', '.join(orders(new)[key])} now"
        for key, names in orders(old).items()
        if sorted(names) == sorted(orders(new).get(key, ())) and names != orders(new)[key] and not free(key)
    ]
    if lines:
        raise RunFolderError(
            f"{folder} holds a run with another config:\n"
            + "\n".join(lines)
            + "\nuse another folder (--run) or that config; --override-resume KEY goes on with a key that differs"
        )
    return overridden


def many(folder: Path) -> str:
    """What is to be said of a folder of many runs, "is a sweep; take one of its runs, such as ..."; "" of one run's."""
    found = next((words for name, words in MANY.items() if (folder / name).is_file()), None)
    return f"is a {found[0]}; take one of its runs, such as {folder / found[1]}" if found else ""


def alone(folder: Path) -> Path:
    """The folder. RunFolderError where it is one of many runs."""
    if said := many(folder):
        raise RunFolderError(f"{folder} {said}, or train into another folder (--run)")
    return folder


def goes_on(differing: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """One sentence on the keys that differ from the run so far, or none."""
    keys = [f"{key}={now} (was {there})" for key, (there, now) in differing.items()]
    return [f"the run goes on with {', '.join(keys)}"] if keys else []


def telling(keys: Sequence[str]) -> list[str]:
    """The keys without the settings of a block whose `use` is among them: another function has other settings."""
    blocks = [key.removesuffix(".use") for key in keys if key.endswith(".use")]
    return [key for key in keys if not any(below(key, block) and key != f"{block}.use" for block in blocks)]


def below(key: str, name: str) -> bool:
    """Whether a dotted key is `name` or stands below it."""
    return f"{key}.".startswith(f"{name}.")


def told(config: Config) -> dict[str, Any]:
    """The keys that all processes of a run have to agree on; where its data lie may differ."""
    flats = flat(plain(config)) | {f"order of {key}": names for key, names in orders(plain(config)).items()}
    return {key: value for key, value in flats.items() if not key.endswith("data.path")}


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """{dotted key: value} of nested mappings."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{path}.{key}" if path else str(key))
    return found


def orders(tree: Any, path: str = "") -> dict[str, tuple[str, ...]]:
    """{dotted key: the keys below it, in their order}.

    Order counts: heads are drawn and weights stand in that of the objectives; of path patterns the first that fits is taken.
    """
    if not isinstance(tree, Mapping):
        return {}
    found = {path: tuple(tree)}
    for key, value in tree.items():
        found |= orders(value, f"{path}.{key}" if path else str(key))
    return found


def finished(previous: str | None, config: Config, folder: Path) -> dict[str, Any] | None:
    """The result of a run that is over; None where there is none, or the config now has another end."""
    if previous is None:
        return None
    before = parse_text(previous)
    until = lambda one: (one.epochs, one.steps, one.evaluate.patience)
    return result(folder) if until(before) == until(config) else None


def result(folder: Path) -> dict[str, Any] | None:
    """The content of `result.json`, None where it is not there."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"steps", "table", "timing", "feed", "chosen", "scale"} <= found.keys():
        raise RunFolderError(f"{path} is damaged; remove it to evaluate the run again")
    return found


def state(
    folder: Path, parts: Parts, devices: Mesh, content: Mapping[str, Any], link: Link | None = None
) -> tuple[TrainState, dict[str, Any] | None]:
    """The newest sealed state on these devices and its seal, or the first state and None; the others get that state.

    content: see there. RunFolderError where the state was sealed with another one.
    """
    unchanged(folder, content)
    link = link or Link()
    link.same("other data", flat(content))
    first = parts.first_state()
    found, seal = checkpoint.latest(folder, first) or (first, None)
    return mesh.place(link.shared(found), devices), seal


def standing(folder: Path, seal: Mapping[str, Any] | None, rules: Evaluate) -> choice.Standing:
    """The best evaluation up to the state of this seal, whose step is in `best/`.

    A best step that was sealed later will come again: where one up to that state is there it goes, else it stays to be
    read until another replaces it.
    """
    at, name = seal["step"] if seal else 0, checkpoint.BEST
    kept = checkpoint.sealed(folder, name=name, files=True, until=at)
    if kept is not None:
        checkpoint.forget(folder, at, name=name)
        return choice.found(seal["run"], rules)
    if checkpoint.steps(folder, name=name) and checkpoint.sealed(folder, name=name, files=True) is None:
        said = f"the best step in {folder} is damaged and dropped: the best is chosen anew from here on"
        warnings.warn(said, stacklevel=2)
        checkpoint.forget(folder, -1, name=name)
    return choice.Standing()


def unchanged(folder: Path, content: Mapping[str, Any]) -> None:
    """RunFolderError where a step of the run was sealed with another content.

    To be asked before a model is compared: other data often give one of other shapes, which says nothing of the cause.
    """
    for name in (checkpoint.BEST, checkpoint.RECENT):
        seal = checkpoint.sealed(folder, name=name)
        if seal is not None:
            check_content(seal["run"], content, folder)


def content(parts: Parts) -> dict[str, Any]:
    """What a checkpoint is only valid with: {"tokenizer": fingerprint, "data": {kind: hash}}, "" without a tokeniser.

    The data are all that training and evaluation read of them, as they read it: token ids, not texts.
    """
    dataset, feed = parts.dataset, parts.feed
    texts = (feed.profile_tokens, feed.event_tokens)
    kinds = {
        "user ids": (named(dataset.users.id),),
        "item ids": (named(dataset.items.id),),
        "user columns": (feed.user_ids, feed.user_features),
        "item columns": (feed.item_ids, feed.item_features),
        "item texts": () if feed.item_tokens is None else (feed.item_text, *feed.item_tokens[:2]),
        "user texts": tuple(array for tokens in texts if tokens is not None for array in tokens[:2]),
        "histories": (dataset.history, dataset.whole, *dataset.seen),
    }
    for name, lists in (("training", dataset.train), ("validation", dataset.valid), ("test", dataset.test)):
        columns = (lists.user, lists.start, lists.item, lists.history, lists.weights, lists.context_ids, lists.context)
        labels = (part for label in sorted(lists.labels) for part in (label, lists.labels[label]))
        kinds |= {f"{name} lists": columns, f"{name} labels": tuple(labels)}
    hashes = {kind: key_of(*columns) for kind, columns in kinds.items()}
    return {"tokenizer": parts.tokenizer.fingerprint if parts.tokenizer else "", "data": hashes}


def named(ids: np.ndarray) -> str:
    """Ids as one text; no two columns give the same."""
    return json.dumps(ids.tolist())


def check_content(sealed: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """RunFolderError where a checkpoint was sealed with another tokeniser or other data, naming what differs."""
    before = sealed.get("data") if isinstance(sealed.get("data"), Mapping) else {}
    changed = ["tokeniser"] if sealed.get("tokenizer") != now["tokenizer"] else []
    changed += [kind for kind, key in now["data"].items() if before.get(kind) != key]
    if changed:
        new = any(kind.startswith("item") for kind in changed)
        hint = (
            "; items that are new are ranked by `mobjrec rank --items FILE`, the data being as they were" if new else ""
        )
        raise RunFolderError(
            f"{folder} was trained with other data; changed since: {', '.join(changed)}; "
            f"restore what it was, or train into another folder (--run){hint}"
        )


def sealed(folder: Path, wanted: Tree, tries: int = 20) -> tuple[Tree, dict[str, Any]] | None:
    """The best step where one is kept, else the newest, with its seal; None where nothing is sealed yet.

    A run that trains beside puts a newer step in the place of the one that is being read: then that is read.
    """
    there = lambda: [checkpoint.steps(folder, name=name) for name in (checkpoint.BEST, checkpoint.RECENT)]
    for left in reversed(range(tries)):
        before = there()
        try:
            return checkpoint.best(folder, wanted, partial=True) or checkpoint.latest(folder, wanted, partial=True)
        except RunFolderError:
            if not left or there() == before:
                raise
    return None
