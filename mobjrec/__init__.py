"""Text-first, multi-objective ranking in JAX."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["fit", "load"]


def __getattr__(name: str) -> Any:
    """`mobjrec.fit` and `mobjrec.load`, imported when first asked for: `import mobjrec` itself stays instant."""
    if name == "load":
        from mobjrec.rank import load

        return load
    if name == "fit":
        # Not in a file named fit: importing that would put the module in the function's place.
        from mobjrec.frames import fit

        return fit
    raise AttributeError(f"module mobjrec has no attribute {name}")
