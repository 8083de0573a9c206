"""One setting for all tests: eight virtual CPU devices, kept compilations, hypothesis without a clock."""

import os
from pathlib import Path

# Before anything imports jax: a device count cannot change later.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of what tests do; the code generator's optimisation doubles it and changes no result that is tested.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import hypothesis
import pytest

hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


def pytest_configure(config: pytest.Config) -> None:
    import jax

    if not hasattr(config, "cache"):
        return
    # Most of a test's time is compiling; the same programs come back in every run.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference values and data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.resolve()}")
    return SHARED.resolve()
