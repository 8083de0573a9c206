"""Weights in 8 bits: symmetric whole numbers from -127 to 127 and a float32 scale per output channel (weights alone)."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from mobjrec.types import Array

SCALE = ".scale"
# Below this many entries a matrix costs nothing, and its precision may cost a lot.
LEAST = 4096
# Tables whose rows are looked up: a row is what comes out, so each has a scale of its own.
LOOKED_UP = frozenset({"word", "position", "type", "rows"})


def packed(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights with every large float matrix W as W8 = round(W / s), s = max |W| / 127 along its inputs, and NAME.scale.

    A matrix [..., inputs, outputs] has scales [..., 1, outputs], a table of rows [N, 1]; a channel of zeros has scale 1.
    """
    found: dict[str, np.ndarray] = {}
    for name, weight in weights.items():
        if not (weight.dtype == np.float32 and weight.ndim >= 2 and weight.size >= LEAST):
            found[name] = weight
            continue
        axis = -1 if name.rsplit("/", 1)[-1] in LOOKED_UP else -2
        scale = np.abs(weight).max(axis, keepdims=True) / np.float32(127.0)
        scale = np.where(scale > 0, scale, np.float32(1.0)).astype(np.float32)
        found[name] = np.rint(weight / scale).astype(np.int8)
        found[name + SCALE] = scale
    return found


def opened(weights: Mapping[str, Array], name: str) -> Array:
    """A weight as the model reads it: W8 s where it is packed, which is where a program that holds 8 bits makes it whole."""
    scale = weights.get(name + SCALE)
    return jnp.asarray(weights[name]) if scale is None else weights[name].astype(jnp.float32) * scale
