"""A Hugging Face BERT folder -> sizes and parameters. Safetensors only, all checked before anything is used."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

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
    """The sizes that a folder's config.json states, and its sentence-transformers pooling. UserError names the file."""
    folder = find(weights)
    config = _json(folder / "config.json")
    kind = config.get("model_type", "bert")
    if kind != "bert" or config.get("hidden_act", "gelu") != "gelu":
        raise UserError(
            f"{folder / 'config.json'}: model_type {kind} with {config.get('hidden_act')} is not BERT with gelu, the only kind"
        )
    try:
        sizes = [
            int(config[name])
            for name in (
                "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size",
                "max_position_embeddings", "vocab_size", "type_vocab_size",
            )
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'}: {error} is missing or no number") from error
    pooling = _json(folder / "1_Pooling" / "config.json") if (folder / "1_Pooling" / "config.json").is_file() else {}
    modules = (folder / "modules.json").read_text() if (folder / "modules.json").is_file() else ""
    return Sizes(*sizes, "cls" if pooling.get("pooling_mode_cls_token") else "mean", "Normalize" in modules)


def check_fit(weights: str, sizes: Sizes, vocabulary: int, positions: int) -> None:
    """UserError where the tokeniser has more tokens, or rows are longer, than the weights know."""
    if vocabulary > sizes.vocabulary:
        raise UserError(
            f"encoder.weights: {weights} has embeddings for {sizes.vocabulary} tokens, but the tokeniser has {vocabulary}; "
            "use tokenizer: {use: pretrained, weights: ...} of the same folder"
        )
    if positions > sizes.positions:
        raise UserError(
            f"encoder.weights: {weights} has {sizes.positions} positions; batch.item_row and batch.user_row may not be "
            f"longer, found {positions}"
        )


def fill(module: Any, weights: str, sizes: Sizes) -> None:
    """Put the folder's weights into a `Bert`. UserError lists tensors that are missing, unexpected or of another shape."""
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
    """The folder's tensors by their names without a "bert." prefix, checked against the sizes, float32."""
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
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}); get it again") from error
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


def find(weights: str) -> Path:
    """The folder of weights; see data.tokens.find, which tokenisers use too."""
    from mobjrec.data.tokens import find

    return find(weights)


def _fill_norm(norm: Any, each: list[dict[str, np.ndarray]], name: str, stacked: bool = False) -> None:
    for ours, theirs in (("scale", "weight"), ("bias", "bias")):
        found = [one[f"{name}.{theirs}"] for one in each]
        getattr(norm, ours)[...] = jnp.stack(found) if stacked else jnp.asarray(found[0])


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there; give a Hugging Face folder of BERT type") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object")
    return found
