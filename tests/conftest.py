"""One setting for all tests: eight virtual CPU devices, cheap and kept compilations, hypothesis without a clock."""

import fcntl
import gc
import os
import shutil
from importlib.metadata import version
from pathlib import Path

# Compiling is most of what tests do. Code that is compiled fast runs slowly and gives the same results to what is tested.
FLAGS = {
    "xla_force_host_platform_device_count": 8,
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}
# XLA ends the process at a flag that it does not know, and from 0.11 on it does not know this one.
if tuple(int(part) for part in version("jaxlib").split(".")[:2]) < (0, 11):
    FLAGS["xla_cpu_use_fusion_emitters"] = "false"


# Before anything imports jax, which reads them once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
given = os.environ.get("XLA_FLAGS", "")
absent = [name for name in FLAGS if name not in given]
os.environ["XLA_FLAGS"] = " ".join([given, *(f"--{name}={FLAGS[name]}" for name in absent)]).strip()

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
TINY = Path(__file__).parent / "tiny.yaml"


def pytest_configure(config: pytest.Config) -> None:
    import jax

    if not hasattr(config, "cache"):
        return
    # Most of a test's time is compiling; the same programs come back in every run.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


# Members of these rooms are proven one by one; of each public suite's runs the first few stay among the fast tests.
PROVEN = {"losses", "metrics", "objectives", "weightings"}
SUITES = {
    "test_every_loss_keeps_its_promises": ("softmax", "huber"),
    "test_every_metric_keeps_its_promises": ("ndcg",),
    "test_a_loss_that_is_not_a_number_leaves_finite_weights_and_state": ("static", "mgda"),
    "test_promises": ("static", "mgda", "probability", "recall"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what compiles a program for every member: its public suite, and the reference's values."""
    for item in items:
        name = getattr(item, "originalname", item.name)
        told = item.path.parent.name in PROVEN and "shared" in getattr(item, "fixturenames", ())
        suite = name in SUITES and not {*SUITES[name]} & {*str(item.name).rstrip("]").partition("[")[2].split("-")}
        if told or suite:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    # Tracing makes many objects and few cycles: looking for these took a twentieth of the time.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference values and data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.resolve()}")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The folder of tiny.yaml's run. One for all tests, as it is the dearest program here: who changes it makes a copy.

    It is a worker's own copy of what the first worker that asked has trained.
    """
    from mobjrec import train
    from mobjrec.config import load

    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "trained"
    shared.mkdir(exist_ok=True)
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "tiny/result.json").is_file():
            train.run(load(TINY), shared / "tiny", shared / "cache", quiet=True)
        return Path(shutil.copytree(shared / "tiny", tmp_path_factory.mktemp("runs") / "tiny"))


@pytest.fixture(scope="session")
def tiny_trained(tiny_run, tiny_cache):
    """That run, loaded to rank and to evaluate."""
    import mobjrec

    return mobjrec.load(tiny_run, tiny_cache)
