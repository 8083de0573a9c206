"""A Hugging Face BERT folder -> sizes and parameters. Safetensors only, all checked before anything is used."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from mobjrec.cache import find
from mobjrec.errors import UserError

LISTED = 20
# Ours -> theirs, below one layer and below the embeddings; a kernel is their weight transposed.
LINEAR = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
}
NORMS = {"norm": "attention.output.LayerNorm", "last": "output.LayerNorm"}
# What `Bert` computes: a config that says otherwise would load and be wrong.
FIXED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
# In the order of Sizes.
COUNTS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "vocab_size",
    "type_vocab_size",
)
# Settings of `bert` that a folder's weights decide.
STATED = ("layers", "width", "heads", "feed_forward", "pooling", "normalise")
TABLES = {"word": "word_embeddings", "position": "position_embeddings", "type": "token_type_embeddings"}


class Sizes(NamedTuple):
    """An encoder's sizes, and how a text's vector is made of its tokens'."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    positions: int
    vocabulary: int
    types: int
    pooling: Literal["mean", "cls"]
    normalise: bool


def read_sizes(weights: str) -> Sizes:
    """The sizes that a folder's config.json states, and its sentence-transformers pooling.

    UserError names the file that is missing, damaged or asks for what `Bert` does not compute.
    """
    folder = find(weights)
    path = folder / "config.json"
    config = _json(path, dict)
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise UserError(f"{path}: {name} is {config[name]!r}; only BERT encoders with {value!r} can be read")
    counts = {}
    for name in COUNTS:
        counts[name] = config.get(name)
        if not isinstance(counts[name], int) or counts[name] < 1:
            raise UserError(f"{path}: {name} is {counts[name]!r}; it must be a whole number of at least 1")
    return Sizes(*counts.values(), *_pooling(folder))


def bert_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The settings of `bert` in force: with `weights` the folder's sizes and pooling, which are not known before it is here.

    ValueError for a given one that differs from the folder's: it would be overruled. UserError for a damaged folder.
    """
    weights = settings["weights"]
    if not weights:
        return {"feed_forward": 4 * settings["width"]} if settings["feed_forward"] is None else {}
    chosen = {name: settings[name] for name in STATED if name in given and settings.get(name) is not None}
    try:
        find(weights)
    except UserError:
        return dict.fromkeys(STATED) | chosen
    sizes = read_sizes(weights)
    stated = {name: getattr(sizes, name) for name in STATED}
    # A folder's vectors may be normalised besides, not the other way round.
    stated["normalise"] |= chosen.get("normalise", False)
    wrong = [name for name, value in chosen.items() if value != stated[name]]
    if wrong:
        texts = [f"{name} is {chosen[name]}, but {weights} has {stated[name]}" for name in wrong]
        raise ValueError("\n".join(f"{text}; with weights the folder decides: drop this or weights" for text in texts))
    return stated


def _pooling(folder: Path) -> tuple[Literal["mean", "cls"], bool]:
    """How the folder makes one vector of a text's tokens, and whether it is then normalised."""
    modules = folder / "modules.json"
    steps = [str(step.get("type", "")).split(".")[-1] for step in _json(modules, list)] if modules.is_file() else []
    unknown = [step for step in steps if step not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise UserError(
            f"{modules}: {', '.join(unknown)} is none of Transformer, Pooling, Normalize, which can be read"
        )
    path = folder / "1_Pooling" / "config.json"
    modes = _json(path, dict) if path.is_file() else {"pooling_mode_mean_tokens": True}
    chosen = [name for name, on in modes.items() if name.startswith("pooling_mode_") and on is True]
    found = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if len(chosen) != 1 or chosen[0] not in found:
        raise UserError(f"{path}: pooling is {', '.join(chosen) or 'absent'}; mean or CLS pooling can be read")
    return found[chosen[0]], "Normalize" in steps


def check_fit(weights: str, sizes: Sizes, vocabulary: int, positions: int) -> None:
    """UserError where the tokeniser has more tokens, or rows are longer, than the weights know."""
    if vocabulary > sizes.vocabulary:
        raise UserError(
            f"encoder.weights: {weights} has embeddings for {sizes.vocabulary} tokens, the tokeniser has {vocabulary}; "
            "use tokenizer: {use: pretrained, weights: ...} of the same folder"
        )
    if positions > sizes.positions:
        raise UserError(
            f"encoder.weights: {weights} has {sizes.positions} positions; batch.item_row and batch.user_row may not be "
            f"longer, found {positions}"
        )


def fill(module: Any, weights: str, sizes: Sizes) -> None:
    """Put the folder's weights into a `Bert`; its key biases change no output and are left out.

    UserError lists tensors that are missing, unexpected or of another shape; the module is then as it was.
    """
    tensors = read_tensors(find(weights), sizes)
    for ours, theirs in TABLES.items():
        table = tensors[f"embeddings.{theirs}.weight"]
        getattr(module.embeddings, ours)[...] = jnp.asarray(table[:1] if ours == "type" else table)
    _fill_norm(module.embeddings.norm, [tensors], "embeddings.LayerNorm")
    for stack, layers in ((module.lower, range(module.below)), (module.upper, range(module.below, sizes.layers))):
        if stack is None:
            continue
        each = [
            {
                name.removeprefix(f"encoder.layer.{n}."): t
                for name, t in tensors.items()
                if name.startswith(f"encoder.layer.{n}.")
            }
            for n in layers
        ]
        for ours, theirs in LINEAR.items():
            linear = getattr(stack, ours)
            linear.kernel[...] = jnp.stack([one[f"{theirs}.weight"].T for one in each])
            if linear.bias is not None:
                linear.bias[...] = jnp.stack([one[f"{theirs}.bias"] for one in each])
        for ours, theirs in NORMS.items():
            _fill_norm(getattr(stack, ours), each, theirs, stacked=True)


def read_tensors(folder: Path, sizes: Sizes) -> dict[str, np.ndarray]:
    """The folder's tensors by their names without a "bert." prefix, checked against the sizes, float32.

    UserError for another format (a pickle is not opened, whatever its name), and one table of all that does not fit.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        others = [
            p.name for p in sorted(folder.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")
        ]
        hint = f"; {', '.join(others)} may hold code and is not read: convert it to safetensors" if others else ""
        raise UserError(f"{folder}: no model.safetensors{hint}")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    # An AttributeError: a type that safetensors knows and numpy does not, of 8 bits or fewer.
    except (SafetensorError, OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}); get it again, in float32, float16 or bfloat16"
        ) from error
    found = {name.removeprefix("bert."): tensor for name, tensor in found.items()}
    wanted = expected(sizes)
    # Heads on top and the table of position numbers are no part of an encoder.
    ignored = ("pooler.", "cls.", "embeddings.position_ids")
    wrong = [f"missing: {name}" for name in wanted if name not in found]
    wrong += [f"unexpected: {name}" for name in found if name not in wanted and not name.startswith(ignored)]
    wrong += [
        f"{name}: shape {found[name].shape}, expected {shape}"
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    ]
    wrong += [
        f"{name}: {found[name].dtype}, expected floating-point numbers"
        for name in wanted
        if name in found and not jnp.issubdtype(found[name].dtype, jnp.floating)
    ]
    wrong += [
        f"{name}: holds NaN or infinity" for name in wanted if name in found and not np.isfinite(found[name]).all()
    ]
    if wrong:
        more = f"\n  ... and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise UserError(
            f"{path} does not hold the weights of its config.json:\n  " + "\n  ".join(wrong[:LISTED]) + more
        )
    return {name: np.asarray(found[name], np.float32) for name in wanted}


def expected(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """{tensor name: shape} of a BERT encoder of these sizes."""
    width, inner = sizes.width, sizes.feed_forward
    rows = {"word": sizes.vocabulary, "position": sizes.positions, "type": sizes.types}
    names = {f"embeddings.{TABLES[ours]}.weight": (count, width) for ours, count in rows.items()}
    shapes = {"wide": (inner, width), "narrow": (width, inner)}
    norms = ["embeddings.LayerNorm"]
    for n in range(sizes.layers):
        for ours, theirs in LINEAR.items():
            shape = shapes.get(ours, (width, width))
            names[f"encoder.layer.{n}.{theirs}.weight"] = shape
            names[f"encoder.layer.{n}.{theirs}.bias"] = shape[:1]
        norms += [f"encoder.layer.{n}.{theirs}" for theirs in NORMS.values()]
    return names | {f"{name}.{kind}": (width,) for name in norms for kind in ("weight", "bias")}


def _fill_norm(norm: Any, each: list[dict[str, np.ndarray]], name: str, stacked: bool = False) -> None:
    for ours, theirs in (("scale", "weight"), ("bias", "bias")):
        found = [one[f"{name}.{theirs}"] for one in each]
        getattr(norm, ours)[...] = jnp.stack(found) if stacked else jnp.asarray(found[0])


def _json(path: Path, kind: type) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; give a Hugging Face folder of BERT type") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; get it again") from error
    if not isinstance(found, kind):
        raise UserError(f"{path} holds a JSON {type(found).__name__}, expected a {kind.__name__}; get it again")
    return found
