"""A run's text encoder as a folder of Hugging Face's form, which sentence-transformers opens too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobjrec.data.batching import reads_users
from mobjrec.data.tokens import publish
from mobjrec.errors import UserError
from mobjrec.export import placed, sized
from mobjrec.models import published
from mobjrec.models.pretrained import Sizes
from mobjrec.rank import Trained
from mobjrec.types import Tree

KEYS = {"both": "encoder", "user": "user_encoder", "item": "item_encoder"}


def write(trained: Trained, folder: Path) -> dict[str, int]:
    """Write the encoder with its tokeniser; with one for each side, into the folders `user` and `item` below.

    A text's embedding there is that of `bert` here: what the towers read, not an item's vector. Returns {file: bytes}.
    UserError for a run without a text encoder or with one that is no `bert`, and where the folder holds something.
    """
    encoders = trained.params["encoder"]
    if not encoders:
        raise UserError(
            f"{trained.folder}: this run reads no text, so there is no encoder to export; use --format stablehlo"
        )
    feed = trained.parts.feed
    rows = {"user": feed.user_row if reads_users(feed) else 0, "item": feed.item_row if feed.item_tokens else 0}
    rows["both"] = max(rows.values())
    described = {name: _sizes(trained, name, tree) for name, tree in encoders.items()}
    with placed(folder) as made:
        for name, params in encoders.items():
            place = made if name == "both" else made / name
            place.mkdir(exist_ok=True)
            padding = publish(trained.parts.tokenizer, place, rows[name])
            published.write(place, params, *described[name], rows[name], padding)
        return sized(made)


def _sizes(trained: Trained, name: str, params: Tree) -> tuple[Sizes, float]:
    """The sizes of an encoder, by its parameters and its config, and its dropout."""
    settings: Mapping[str, Any] = trained.parts.config.model.settings.get(KEYS[name]) or {}
    use = str(settings.get("use", ""))
    if use not in ("bert", "mobjrec.models:bert", "mobjrec.models.bert:bert"):
        raise UserError(
            f"model.{KEYS[name]} is {use or 'not named'}, which no Hugging Face class is known to compute; only bert can be "
            "exported so, use --format stablehlo"
        )
    tables = params["embeddings"]
    layers = sum(len(params[stack]["query"]["kernel"]) for stack in ("lower", "upper") if stack in params)
    inner = (params.get("upper") or params["lower"])["wide"]["kernel"].shape[-1]
    counts = (layers, tables["word"].shape[1], settings["heads"], inner)
    rows = (len(tables["position"]), len(tables["word"]), len(tables["type"]))
    return Sizes(*counts, *rows, settings["pooling"], settings["normalise"]), settings["dropout"]
