"""NNX modules as functions over a plain nested dict of arrays: the only place that takes a module apart."""

from collections.abc import Callable

from flax import nnx

from mobjrec.types import Array, Tree

Make = Callable[[nnx.Rngs], nnx.Module]


def init(make: Make) -> Callable[[Array], Tree]:
    """First parameters of the module that `make` builds, as a function of a key.

    Returns key -> nested dict with string keys (a list's entries are "0", "1" ...) and arrays as leaves; {} for a
    module without parameters. ValueError if the module holds a variable that is not an `nnx.Param`: such state would be
    lost between steps.
    """
    return lambda key: _plain(_params(make(nnx.Rngs(key))))


def bind(make: Make) -> Callable[[Tree], nnx.Module]:
    """The module that `make` builds, with given parameters in it, as a function of them; makes no array of its own.

    Returns params -> module, usable under jit, vjp, vmap, scan and shard_map. ValueError for a module whose variables
    are not all `nnx.Param`; KeyError for a tree in which a parameter is missing.
    """
    return rebound(blank(make))


def rebound(module: nnx.Module) -> Callable[[Tree], nnx.Module]:
    """The same of a blank module: building one by shape again takes as long as the first time."""
    structure, state = nnx.split(module)
    paths = [path for path, _ in nnx.to_flat_state(state)]

    def bound(params: Tree) -> nnx.Module:
        flat = [(path, _at(params, path)) for path in paths]
        return nnx.merge(structure, nnx.from_flat_state(flat))

    return bound


def blank(make: Make) -> nnx.Module:
    """The module that `make` builds with shapes in place of arrays: costs no memory, tells settings and structure."""
    module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    _params(module)
    return module


def parts_of(module: nnx.Module) -> frozenset[str]:
    """The first keys of the module's parameters."""
    return frozenset(_plain(_params(module)))


def stack(make: Make, count: int, rngs: nnx.Rngs) -> nnx.Module:
    """`count` modules of one kind as one module whose parameters have a leading axis [count, ...]."""
    return nnx.vmap(make, in_axes=0, out_axes=0)(rngs.split(count))


def opened(module: nnx.Module) -> tuple[Tree, Callable[[Tree], nnx.Module]]:
    """A module's parameters and the way back, for `jax.lax.scan` over stacked layers.

    Returns (params, bound): `bound(params)` is the module again; with a slice of stacked parameters, one of its layers.
    """
    structure, state = nnx.split(module)
    return nnx.to_pure_dict(state), lambda params: nnx.merge(structure, nnx.State(params))


def _params(module: nnx.Module) -> nnx.State:
    state = nnx.state(module)
    for path, leaf in nnx.to_flat_state(state):
        if not isinstance(leaf, nnx.Param):
            name = ".".join(map(str, path))
            raise ValueError(
                f"{type(module).__name__}.{name} is a {type(leaf).__name__}; a model's variables must all be nnx.Param "
                "(draw dropout from the keys of the call, not from an rngs kept in the module)"
            )
    return state


def _plain(state: nnx.State) -> Tree:
    def named(node: Tree) -> Tree:
        return {str(name): named(child) for name, child in node.items()} if isinstance(node, dict) else node

    return named(nnx.to_pure_dict(state))


def _at(params: Tree, path: tuple) -> Array:
    for name in path:
        params = params[str(name)]
    return params
