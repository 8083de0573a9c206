"""What a number may depend on besides config and data: versions, devices, machine, commit."""

import os
import platform
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from mobjrec import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of the packages that parameters and order of data depend on."""
    return {"mobjrec": __version__, **{name: metadata.version(name) for name in PACKAGES}}


def environment() -> dict[str, Any]:
    """JSON values that describe where the calling process runs; JAX's devices are looked up, and so started."""
    import jax

    devices = jax.devices()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), **versions()},
        "devices": {"kind": devices[0].device_kind, "count": len(devices), "processes": jax.process_count()},
        "commit": commit(),
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A sentence for each version or device in which two environments differ."""
    pairs = [(name, before["versions"].get(name), new) for name, new in now["versions"].items()]
    pairs += [(f"device {name}", before["devices"].get(name), new) for name, new in now["devices"].items()]
    return [f"{name} was {old} and is {new}: the same bits are not promised" for name, old, new in pairs if old != new]


def commit() -> str:
    """Commit of the checkout that this file lies in, with a + if tracked files differ; "" for an installed package."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        head, changed = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except OSError:
        return ""
    return head + ("+" if changed else "")
