"""Text-first, multi-objective ranking in JAX."""

__version__ = "0.1.0"
