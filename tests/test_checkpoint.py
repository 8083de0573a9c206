import json
import resource
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mobjrec import checkpoint
from mobjrec.errors import RunFolderError

State = namedtuple("State", "step params opt_state")


def state(step: int) -> State:
    params = {"encoder": {"kernel": jnp.arange(6.0).reshape(2, 3) + step, "bias": None}, "objectives": {}}
    moments = {"encoder": {"kernel": jnp.full((2, 3), 0.1 * step), "bias": None}}
    return State(jnp.int32(step), params, (moments, ()))


def shapes(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Steps 10 and 20, both sealed."""
    for step in (10, 20):
        checkpoint.save(tmp_path, state(step), step, {"config": f"hash {step}"})
    return tmp_path


def data_files(folder: Path, step: int) -> list[Path]:
    return sorted(path for path in (folder / "checkpoints" / str(step)).rglob("*") if path.is_file())


def test_the_newest_step_comes_back_with_what_was_said_of_it(folder):
    restored, seal = checkpoint.latest(folder, shapes(state(0)))
    equal(restored, state(20))
    assert (seal["step"], seal["run"], seal["skipped"]) == (20, {"config": "hash 20"}, [])
    assert seal["versions"]["jax"] == jax.__version__
    assert seal["tree"]["params/encoder/kernel"] == {"shape": [2, 3], "dtype": "float32"}


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.latest(tmp_path, state(0)) is None
    assert checkpoint.best(tmp_path, state(0)) is None
    assert checkpoint.steps(tmp_path) == []


def test_two_steps_are_kept_and_the_best_apart(folder):
    checkpoint.save(folder, state(10), 10, {}, name=checkpoint.BEST, keep=1)
    checkpoint.save(folder, state(30), 30, {}, name=checkpoint.BEST, keep=1)
    for step in (30, 40):
        checkpoint.save(folder, state(step), step, {})
    assert checkpoint.steps(folder) == [30, 40]
    assert checkpoint.steps(folder, name=checkpoint.BEST) == [30]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "30",
        "40",
        "seal-30.json",
        "seal-40.json",
    ]
    equal(checkpoint.best(folder, state(0))[0], state(30))


LEAVES = {
    "key": jax.random.key(3),
    "rbg": jax.random.key(3, impl="rbg"),
    "keys": jax.random.split(jax.random.key(3), 4),
    "raw": jax.random.PRNGKey(3),
    "odd": jnp.array([jnp.nan, jnp.inf, -jnp.inf, -0.0, 1e-45], jnp.float32),
    **{name: jnp.array([0, 1, 2], name) for name in ("bfloat16", "float16", "float8_e4m3fn", "int8", "uint32", "bool")},
    "double": np.array([0.1, np.nan]),
    "long": np.array([2**62, -1]),
    "numpy scalar": np.float32(0.1),
    "numpy long": np.int64(2**40),
    "int": 2**40,
    "float": 0.1,
    "flag": True,
    "none": None,
    "empty": jnp.zeros((0, 4), jnp.bfloat16),
    "empty double": np.zeros((3, 0)),
    "scalar": jnp.float32(1.5),
    "name/with.all [kinds] of signs": jnp.ones(1),
}


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("by_shape", [False, True])
def test_every_kind_of_leaf_keeps_type_and_bits(name, by_shape, tmp_path):
    tree = {name: LEAVES[name], "other": jnp.ones(2)}
    checkpoint.save(tmp_path, tree, 1, {})

    def as_shape(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf

    restored, _ = checkpoint.latest(tmp_path, jax.tree.map(as_shape, tree) if by_shape else tree)
    old, new = tree[name], restored[name]
    assert type(old) is type(new)
    if name in ("key", "rbg", "keys"):
        assert (new.dtype, jax.random.key_impl(new)) == (old.dtype, jax.random.key_impl(old))
        old, new = jax.random.key_data(old), jax.random.key_data(new)
    if old is not None:
        assert np.asarray(old).dtype == np.asarray(new).dtype
        assert np.asarray(old).shape == np.asarray(new).shape
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()


@pytest.mark.parametrize("leaf", ["text", 2**64, object(), np.array(["a"])])
def test_a_leaf_that_is_no_number_is_refused_by_name(leaf, tmp_path):
    with pytest.raises(ValueError, match="memory/note is a "):
        checkpoint.save(tmp_path, {"memory": {"note": leaf}}, 1, {})
    assert not (tmp_path / "checkpoints").exists()


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(("damage", "word"), [(flip, "was changed"), (truncate, "bytes"), (Path.unlink, "missing")])
def test_any_damaged_file_is_found_named_and_stepped_over(damage, word, folder, tmp_path_factory):
    for file in data_files(folder, 20):
        copy = tmp_path_factory.mktemp("copy") / "run"
        shutil.copytree(folder, copy)
        inner = file.relative_to(folder)
        damage(copy / inner)
        restored, seal = checkpoint.latest(copy, shapes(state(0)))
        equal(restored, state(10))
        (sentence,) = seal["skipped"]
        assert sentence.startswith("step 20 is not used: file ") and word in sentence
        assert str(inner.relative_to("checkpoints/20")) in sentence


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink, lambda path: path.write_text("[]")])
def test_a_step_with_a_broken_seal_is_stepped_over(damage, folder):
    damage(folder / "checkpoints" / "seal-20.json")
    restored, seal = checkpoint.latest(folder, state(0))
    equal(restored, state(10))
    assert "seal" in seal["skipped"][0]


@pytest.mark.parametrize("leftover", ["30", "30.orbax-checkpoint-tmp", "30.orbax-checkpoint-tmp-3"])
def test_an_unsealed_newest_step_is_not_used_and_goes_at_the_next_save(leftover, folder):
    shutil.copytree(folder / "checkpoints" / "20", folder / "checkpoints" / leftover)
    (folder / "checkpoints" / ".seal-30.tmp").write_text("{")
    equal(checkpoint.latest(folder, state(0))[0], state(20))
    assert checkpoint.steps(folder) == [10, 20]
    checkpoint.save(folder, state(25), 25, {})
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"20", "25", "seal-20.json", "seal-25.json"}


@pytest.mark.parametrize("sealed", [False, True])
def test_an_empty_newest_step_is_not_used(sealed, folder):
    (folder / "checkpoints" / "30").mkdir()
    if sealed:
        shutil.copy(folder / "checkpoints" / "seal-20.json", folder / "checkpoints" / "seal-30.json")
    restored, seal = checkpoint.latest(folder, state(0))
    equal(restored, state(20))
    assert seal["skipped"][0].startswith("step 30 is not used: ")


def test_files_that_are_not_ours_stay(folder):
    for name in ("notes.txt", "seal-x.json", "20.backup"):
        (folder / "checkpoints" / name).write_text("mine")
    checkpoint.save(folder, state(30), 30, {})
    checkpoint.clean(folder)
    assert all(
        (folder / "checkpoints" / name).read_text() == "mine" for name in ("notes.txt", "seal-x.json", "20.backup")
    )


def test_damage_everywhere_is_an_error_not_a_fresh_start(folder):
    for step in (10, 20):
        flip(data_files(folder, step)[0])
    with pytest.raises(RunFolderError, match=r"step 20 is not used.*step 10 is not used"):
        checkpoint.latest(folder, state(0))


def test_a_run_goes_on_after_a_damaged_step(folder):
    flip(data_files(folder, 20)[0])
    checkpoint.save(folder, state(15), 15, {})
    assert checkpoint.steps(folder) == [10, 15]
    checkpoint.save(folder, state(20), 20, {})
    equal(checkpoint.latest(folder, state(0))[0], state(20))


def test_a_damaged_step_is_written_anew_and_a_good_one_left(folder):
    before = [path.stat().st_mtime_ns for path in data_files(folder, 20)]
    checkpoint.save(folder, state(20), 20, {})
    assert [path.stat().st_mtime_ns for path in data_files(folder, 20)] == before
    flip(data_files(folder, 20)[0])
    checkpoint.save(folder, state(20), 20, {})
    assert checkpoint.latest(folder, state(0))[1]["skipped"] == []


def test_an_earlier_step_than_a_good_one_is_an_error(folder):
    with pytest.raises(RunFolderError, match="holds step 20; step 15 cannot be saved after it"):
        checkpoint.save(folder, state(15), 15, {})
    assert checkpoint.steps(folder) == [10, 20]


def test_a_later_best_step_is_read_until_another_is_sealed(tmp_path, monkeypatch):
    put = lambda step, bits: checkpoint.save(tmp_path, state(bits), step, {}, name=checkpoint.BEST, keep=1)
    put(20, 20)
    best = lambda: checkpoint.best(tmp_path, state(0))[0]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_seal", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            put(10, 10)
    equal(best(), state(20))
    put(10, 10)
    equal(best(), state(10))
    assert checkpoint.steps(tmp_path, name=checkpoint.BEST) == [10]
    # The same number on another course is another step; the same bits are left as they lie.
    put(10, 11)
    equal(best(), state(11))
    written = [path.stat().st_mtime_ns for path in sorted((tmp_path / "best").rglob("*"))]
    put(10, 11)
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "best").rglob("*"))] == written


@pytest.mark.parametrize("dies", ["_write", "_write_seal", "_set_aside", "os.rename"])
def test_a_best_step_of_the_same_number_is_read_until_it_is_sealed_anew(dies, tmp_path, monkeypatch):
    put = lambda bits: checkpoint.save(tmp_path, state(bits), 10, {}, name=checkpoint.BEST, keep=1)
    put(10)

    def full(*_):
        raise OSError("the disk is full")

    def killed(*_):
        raise KeyboardInterrupt

    for dead, error in ((full, RunFolderError), (killed, KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            patch.setattr(f"mobjrec.checkpoint.{dies}", dead)
            with pytest.raises(error):
                put(11)
        found, seal = checkpoint.best(tmp_path, state(0))
        equal(found, state(10))
        assert seal["step"] == 10
    put(12)
    equal(checkpoint.best(tmp_path, state(0))[0], state(12))
    assert checkpoint.steps(tmp_path, name=checkpoint.BEST) == [10]


def test_of_one_step_kept_the_earlier_is_whole_until_the_next_is_sealed(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(10), 10, {}, keep=1)
    seal, seen = checkpoint._write_seal, []

    def sealing(*given):
        seen.append(int(checkpoint.latest(tmp_path, state(0))[0].step))
        seal(*given)
        seen.append(int(checkpoint.latest(tmp_path, state(0))[0].step))

    monkeypatch.setattr(checkpoint, "_write_seal", sealing)
    checkpoint.save(tmp_path, state(20), 20, {}, keep=1)
    assert seen == [10, 20] and checkpoint.steps(tmp_path) == [20]


def test_another_tree_is_refused_leaf_by_leaf(folder):
    other = State(jnp.int32(0), {"encoder": {"kernel": jnp.ones((2, 4)), "scale": jnp.ones(3)}}, ())
    with pytest.raises(RunFolderError) as error:
        checkpoint.latest(folder, other)
    told = str(error.value)
    assert "1 missing: params/encoder/scale float32[3]" in told
    assert "1 unexpected: opt_state/0/encoder/kernel float32[2, 3]" in told
    assert "params/encoder/kernel (float32[2, 3] stored, float32[2, 4] expected)" in told


@pytest.mark.parametrize("dtype", ["bfloat16", "int32"])
def test_no_dtype_is_cast(dtype, folder):
    other = state(0)._replace(opt_state=({"encoder": {"kernel": jnp.zeros((2, 3), dtype), "bias": None}}, ()))
    with pytest.raises(RunFolderError, match=rf"float32\[2, 3\] stored, {dtype}\[2, 3\] expected"):
        checkpoint.latest(folder, other)


def test_many_wrong_leaves_are_counted(folder):
    with pytest.raises(RunFolderError, match=r"25 missing: .* and 5 more"):
        checkpoint.latest(folder, {f"leaf{number:02}": jnp.ones(1) for number in range(25)})


def test_a_newer_schema_is_refused(folder):
    path = folder / "checkpoints" / "seal-20.json"
    seal = json.loads(path.read_text()) | {"schema": 99}
    del seal["sha256"]
    path.write_text(json.dumps({**seal, "sha256": checkpoint._digest(seal)}))
    with pytest.raises(RunFolderError, match="written by a newer mobjrec"):
        checkpoint.latest(folder, state(0))


def test_parameters_alone_are_read_from_a_whole_state(folder):
    restored, seal = checkpoint.latest(folder, {"params": shapes(state(0).params)}, partial=True)
    equal(restored["params"], state(20).params)
    assert seal["step"] == 20
    with pytest.raises(RunFolderError, match="1 missing: params/more"):
        checkpoint.latest(folder, {"params": {"more": jnp.ones(1)}}, partial=True)


def test_reading_changes_nothing_in_the_folder(folder):
    shutil.copytree(folder / "checkpoints" / "20", folder / "checkpoints" / "30.orbax-checkpoint-tmp")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))
    checkpoint.latest(folder, state(0))
    assert sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_arrays_go_where_the_target_says(tmp_path):
    devices = np.array(jax.devices())
    one, all_of_them = Mesh(devices[:1], "data"), Mesh(devices, "data")
    values = np.arange(16.0, dtype=np.float32)
    tree = {"rows": jax.device_put(values, NamedSharding(all_of_them, PartitionSpec("data")))}
    checkpoint.save(tmp_path, tree, 1, {})
    for mesh in (one, all_of_them):
        sharding = NamedSharding(mesh, PartitionSpec("data"))
        like = {"rows": jax.ShapeDtypeStruct((16,), jnp.float32, sharding=sharding)}
        (rows,) = checkpoint.latest(tmp_path, like)[0].values()
        assert rows.sharding == sharding
        np.testing.assert_array_equal(rows, values)


def test_a_full_disk_names_needed_and_free_and_keeps_what_is_there(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(10))
    with pytest.raises(RunFolderError, match=r"no room for step 30 .*: 78 bytes needed, 10 free"):
        checkpoint.save(folder, state(30), 30, {})
    equal(checkpoint.latest(folder, state(0))[0], state(20))


@contextmanager
def largest_file(size: int):
    """No file of this process grows above `size` bytes in the block: a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("rows", "told"), [(3000, ""), (3, "y" * 5000)], ids=["arrays", "seal"])
def test_a_write_that_fails_is_one_sentence_and_leaves_what_was_there(rows, told, folder):
    before = sorted(str(path) for path in folder.rglob("*"))
    with largest_file(4000), pytest.raises(RunFolderError, match=r"step 30 could not be written to .*checkpoints: "):
        checkpoint.save(folder, {"rows": np.random.default_rng(0).random(rows)}, 30, {"note": told})
    assert sorted(str(path) for path in folder.rglob("*")) == before
    equal(checkpoint.latest(folder, state(0))[0], state(20))
    checkpoint.save(folder, state(30), 30, {})
    assert checkpoint.steps(folder) == [20, 30]


SAVER = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from mobjrec import checkpoint
folder = Path(sys.argv[1])
like = {"rows": jax.ShapeDtypeStruct((500, 1000), jnp.float32)}
found = checkpoint.latest(folder, like)
step = found[1]["step"] if found else 0
print("ready", flush=True)
while True:
    step += 1
    checkpoint.save(folder, {"rows": jnp.full((500, 1000), step, jnp.float32)}, step, {})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_of_saving_leaves_a_step_that_verifies(tmp_path):
    random = np.random.default_rng(0)
    like, last = {"rows": jax.ShapeDtypeStruct((500, 1000), jnp.float32)}, 0
    for _ in range(30):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        saved = int(process.stdout.readline())
        # Moments are shares of a save's own time: they fall inside one on a machine of any speed.
        try:
            process.wait(timeout=random.uniform(0.0, 2.0) * (time.monotonic() - begun))
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        process.stdout.close()
        assert process.returncode == -9
        restored, seal = checkpoint.latest(tmp_path, like)
        assert seal["step"] >= saved > last
        last = seal["step"]
        np.testing.assert_array_equal(restored["rows"], last)
    # The last two steps, and one that was sealed when the kill kept an older one from going.
    assert len(checkpoint.steps(tmp_path)) <= 3
