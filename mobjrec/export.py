"""A trained run as a folder for elsewhere: its functions as serialised StableHLO, which jax alone opens, with a schema."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as exporting
from safetensors.numpy import save

from mobjrec import __version__, quantise
from mobjrec.data.batching import reads_users
from mobjrec.data.columns import readings
from mobjrec.data.texts import divide
from mobjrec.errors import UserError
from mobjrec.inference import width_of
from mobjrec.rank import Trained
from mobjrec.types import Array, Input, Outputs, Table, Texts, Tree

PLATFORMS = ("cpu", "cuda", "tpu")
# What a dimension is where a model's code asks for numbers and not names: the one that `t` has is its side's row.
FIXED = {"n": 32, "b": 1, "l": 256}
WORDS = {"n": "any number of texts or items", "b": "any number of users", "l": "any number of items"}


class Function(NamedTuple):
    """A function to be exported. call: (its weights' tree, {name: input}) -> arrays

    weights: what it reads of {"params", "memory"}   inputs: {name: (shape of names and numbers, dtype)}
    row: what `t`, tokens of a text, may be at most
    """

    call: Callable[[Tree, dict[str, Array]], Any]
    weights: Tree
    inputs: dict[str, tuple[tuple[str | int, ...], str]]
    row: int = 0


def write(trained: Trained, folder: Path, int8: bool = False) -> dict[str, int]:
    """Write the folder: schema.json, a file a function, weights.safetensors, items.npy and items.json, tokenizer.json, load.py.

    int8: large matrices in 8 bits, see `quantise.packed`; made whole in the program
    Returns {file: bytes}. UserError where the folder holds something already, or a function cannot be traced.
    """
    with placed(folder) as made:
        weights, told = {}, {}
        for name, function in functions(trained).items():
            own = flat(function.weights)
            own = quantise.packed(own) if int8 else own
            exported, sizes = traced(name, function, own)
            (made / f"{name}.stablehlo").write_bytes(exported.serialize())
            weights |= own
            told[name] = _told(function, exported, own, sizes)
        whole = save({name: np.asarray(array, order="C") for name, array in weights.items()})
        (made / "weights.safetensors").write_bytes(whole)
        np.save(made / "items.npy", np.asarray(trained.items.matrix, np.float32))
        (made / "items.json").write_text(json.dumps(trained.items.id.tolist(), ensure_ascii=False), encoding="utf-8")
        if trained.parts.tokenizer is not None:
            trained.parts.tokenizer.save(made)
        (made / "schema.json").write_text(
            json.dumps(schema(trained, told), indent=1, ensure_ascii=False), encoding="utf-8"
        )
        shutil.copyfile(str(files("mobjrec").joinpath("load.txt")), made / "load.py")
        return sized(made)


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """A new folder beside, which takes this one's place when all is written. UserError where something is there already."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is there and not empty; name a new folder, or remove it first")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            yield made
            os.replace(made, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}; name another folder") from error


def sized(folder: Path) -> dict[str, int]:
    """{file: bytes} of all below a folder."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def listed(folder: Path, sizes: dict[str, int]) -> str:
    """The files of a folder, one a line."""
    return "\n".join([f"{folder}", *(f"  {name}  {size / 1e6:.2f} MB" for name, size in sizes.items())])


def functions(trained: Trained) -> dict[str, Function]:
    """What a run exports: `encode_users` and `encode_items` where it reads their texts, `items` and `score`."""
    parts, params = trained.parts, trained.params
    feed, model = parts.feed, parts.model
    found, widths = {}, {}
    for side, encode, row, reads in (
        ("user", model.encode_users, feed.user_row, reads_users(feed)),
        ("item", model.encode_items, feed.item_row, feed.item_tokens is not None),
    ):
        if not reads:
            continue
        encoder = {name: tree for name, tree in params["encoder"].items() if name in ("both", side)}
        widths[side] = width_of(getattr(parts.functions, f"encode_{side}s"), encoder)
        inputs = {"tokens": (("n", "t"), "int32")}
        found[f"encode_{side}s"] = Function(_embedding(encode), {"params": {"encoder": encoder}}, inputs, row)
    item = {"params": {"item": params["item"]}}
    found["items"] = Function(_items(trained), item, _columns(trained, "item", "n", widths))
    width = trained.items.matrix.shape[1]
    inputs = _columns(trained, "user", "b", widths)
    if feed.history:
        inputs["history"] = ("b", feed.history, width), "float32"
        inputs["there"] = ("b", feed.history), "bool"
    inputs["items"] = ("l", width), "float32"
    if model.conditioned:
        inputs["preference"] = (len(parts.objectives),), "float32"
    rest = {name: tree for name, tree in params.items() if name not in ("encoder", "item")}
    found["score"] = Function(_score(trained), {"params": rest, "memory": trained.memory}, inputs)
    return found


def _columns(trained: Trained, side: str, count: str, widths: dict[str, int]) -> dict[str, tuple]:
    """What is known of users or items, without what has no column."""
    ids, numbers = (getattr(trained.parts.feed, f"{side}_{kind}").shape[1] for kind in ("ids", "features"))
    inputs = {"text": ((count, widths[side]), "float32")} if side in widths else {}
    inputs |= {"ids": ((count, ids), "int32")} if ids else {}
    return inputs | ({"numbers": ((count, numbers), "float32")} if numbers else {})


def _embedding(encode: Callable) -> Callable:
    def call(tree: Tree, inputs: dict[str, Array]) -> Array:
        """One text a row, so none is packed; -1 is padding."""
        tokens = inputs["tokens"]
        count, length = tokens.shape
        position = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (count, length))
        texts = Texts(
            jnp.maximum(tokens, 0), position, (tokens >= 0).astype(jnp.int32), jnp.ones((count, 1), bool)
        )  # fmt: skip
        return encode(tree["params"]["encoder"], texts, None)[:, 0]

    return call


def _known(inputs: dict[str, Array], count: Any) -> tuple[Array | None, Array, Array]:
    """text, ids, features, the last two without columns where nothing is read there."""
    ids = inputs.get("ids", jnp.zeros((count, 0), jnp.int32))
    return inputs.get("text"), ids, inputs.get("numbers", jnp.zeros((count, 0)))


def _items(trained: Trained) -> Callable:
    def call(tree: Tree, inputs: dict[str, Array]) -> Array:
        count = next(iter(inputs.values())).shape[0]
        return trained.parts.model.item(tree["params"], *_known(inputs, count), None)

    return call


def _score(trained: Trained) -> Callable:
    model, objectives, context = trained.parts.model, trained.parts.objectives, trained.parts.spec.context
    columns = sum(column.slots for column in context.ids)

    def call(tree: Tree, inputs: dict[str, Array]) -> dict[str, Array]:
        """{objective: [b, l]}; of the context nothing is known, as in `Trained.rank`."""
        params, items = tree["params"], inputs["items"]
        count = next(inputs[name] for name in ("text", "ids", "numbers", "history") if name in inputs).shape[0]
        who = model.user(params, *_known(inputs, count), inputs.get("history"), inputs.get("there"), None)
        shape = (count, items.shape[0])
        numbers, ids = jnp.zeros((*shape, len(context.numbers))), jnp.zeros((*shape, columns), jnp.int32)
        scores = model.score(params, who, items[None], numbers, ids, inputs.get("preference"), None)
        outputs = Outputs(scores, who, items[None])
        return {
            name: one.predict(outputs, params["objectives"][name], tree["memory"][name])
            for name, one in objectives.items()
        }

    return call


def flat(tree: Tree) -> dict[str, np.ndarray]:
    """{"params/item/...": array} of a tree's leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}


def path_name(path: tuple) -> str:
    """A leaf's place in a tree, "item/hidden/out/kernel"."""
    return "/".join(str(getattr(step, "key", getattr(step, "name", getattr(step, "idx", step)))) for step in path)


def traced(name: str, function: Function, weights: dict[str, np.ndarray]) -> tuple[exporting.Exported, dict[str, int]]:
    """The function for all platforms, of its weights and its inputs by name; and the sizes that had to be fixed, {} if none.

    UserError where it can be traced neither way.
    """
    names = jax.tree_util.tree_map_with_path(lambda path, _: path_name(path), function.weights)

    def call(held: dict[str, Array], inputs: dict[str, Array]) -> Any:
        return function.call(jax.tree.map(lambda leaf: quantise.opened(held, leaf), names), inputs)

    like = {key: jax.ShapeDtypeStruct(array.shape, array.dtype) for key, array in weights.items()}
    used = {size for shape, _ in function.inputs.values() for size in shape if isinstance(size, str)}
    fixed = {size: function.row if size == "t" else FIXED[size] for size in sorted(used)}
    scope = exporting.SymbolicScope([f"t <= {function.row}"] if "t" in used else [])
    problem = None
    for sizes in ({}, fixed):
        shapes = {
            key: exporting.symbolic_shape(", ".join(str(sizes.get(size, size)) for size in shape), scope=scope)
            for key, (shape, _) in function.inputs.items()
        }
        inputs = {key: jax.ShapeDtypeStruct(shape, function.inputs[key][1]) for key, shape in shapes.items()}
        try:
            return exporting.export(jax.jit(call), platforms=PLATFORMS)(like, inputs), sizes
        # Whatever a model's own code raises where a size is a name and not a number.
        except Exception as error:
            problem = problem or error
    raise UserError(f"{name} cannot be exported: {str(problem)[:300]}") from problem


def _told(
    function: Function, exported: exporting.Exported, weights: dict[str, np.ndarray], sizes: dict[str, int]
) -> dict[str, Any]:
    inputs = {
        key: {"shape": [sizes.get(size, size) for size in shape], "dtype": dtype}
        for key, (shape, dtype) in function.inputs.items()
    }
    outs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    outs = outs if isinstance(outs, dict) else {"": outs}
    shapes = {key: {"shape": [str(size) for size in a.shape], "dtype": str(a.dtype)} for key, a in outs.items()}
    return {"inputs": inputs, "outputs": shapes.get("", shapes), "weights": list(weights)}


def schema(trained: Trained, told: dict[str, Any]) -> dict[str, Any]:
    """What a caller must know, in plain data: see docs/export.md."""
    parts, feed = trained.parts, trained.parts.feed
    profile, event = divide(parts.inputs["user"].text)
    templates = {"user": {"profile": profile, "event": event}, "item": {"text": parts.inputs["item"].text}}
    rows = {"user": feed.user_row, "item": feed.item_row}
    reads = {side: f"encode_{side}s" in told for side in rows}
    train = parts.dataset.train
    sizes = WORDS | {"t": "tokens of the longest text, no more than the side's row"}
    return {
        "format": 1,
        "made_by": {"mobjrec": __version__, "jax": jax.__version__, "step": trained.step},
        "platforms": list(PLATFORMS),
        "functions": told,
        "sizes": sizes,
        "texts": {
            side: {**templates[side], "row": rows[side], "cls": feed.cls, "sep": feed.sep, "padding": -1}
            for side in rows
            if reads[side]
        },
        "columns": {
            "user": _read(parts.corpus.users, parts.inputs["user"], "user", train.user),
            "item": _read(parts.corpus.items, parts.inputs["item"], "item", train.item),
        },
        "history": feed.history,
        "catalogue": len(trained.items.id),
        "objectives": list(parts.objectives),
        "utility": {name: list(pair) for name, pair in trained.scale.items()},
        "conditioned": parts.model.conditioned,
    }


def _read(table: Table, wanted: Input, own: str, rows: np.ndarray) -> dict[str, Any]:
    met = np.zeros(len(table.id), bool)
    met[rows] = True
    ids, numbers = readings(table, wanted, own, met)
    return {"ids": ids, "numbers": numbers}
