"""Plain data as YAML that any reader of YAML 1.1 or 1.2, ours first, takes for the same data."""

import math
import re
from collections.abc import Iterator
from typing import Any

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@-]*")
WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def written(mapping: dict[str, Any]) -> str:
    """One key a line, lists in brackets, floats by repr (the shortest text that reads back to the same bits)."""
    return "\n".join(_lines(mapping, "")) + "\n" if mapping else "{}\n"


def _lines(mapping: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{_text(key)}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{_text(key)}: {_inline(value)}"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_inline(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float) and math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    if isinstance(value, float):
        return _float(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _float(value: float) -> str:
    """repr, with the point that YAML 1.1 wants in a number with an exponent: 1.0e-05, not 1e-05."""
    mantissa, exponent, power = repr(value).partition("e")
    if not exponent:
        return mantissa
    return (mantissa if "." in mantissa else mantissa + ".0") + "e" + (power if power[0] in "+-" else "+" + power)


def _text(text: str) -> str:
    if PLAIN.fullmatch(text) and text.lower() not in WORDS:
        return text
    return '"' + "".join(map(_letter, text)) + '"'


def _letter(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
