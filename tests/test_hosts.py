"""Several processes as one run: the meeting with threads, a whole run with two real processes on loopback (slow)."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mobjrec import checkpoint, hosts, link, record
from mobjrec.errors import NumericError, PeerError, RunFolderError, Stopped, UserError
from mobjrec.link import Link

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "tiny.yaml"
LIMIT = 300  # seconds that a test waits for a process at most


@pytest.fixture(autouse=True, scope="module")
def never_the_end_of_all_tests():
    """A link that is lost ends its process at last; here that is the one of all tests, for which it stays in vain."""
    Link._end = lambda self: None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def together(count, act, patience=5.0, numbers=None):
    """What `act(link)` gives in each of the processes that come; a mistake is given as a value."""
    address = f"127.0.0.1:{free_port()}"

    def one(number):
        try:
            with hosts.meet(address, count, number, patience) as link:
                return act(link)
        except (PeerError, UserError, RunFolderError, NumericError, Stopped) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count) if numbers is None else numbers))


def test_all_meet_and_every_payload_reaches_everyone():
    found = together(3, lambda link: (link.exchange(f"{link.number}!".encode()), link.exchange(), link.first))
    assert found == [([b"0!", b"1!", b"2!"], [b"", b"", b""], number == 0) for number in range(3)]


def hello(port: int, number: int, count: int) -> socket.socket:
    """A connection that says who it is, as a process does, and then nothing."""
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except OSError:
            time.sleep(0.05)
    link.send(connection, b"h", json.dumps([number, count]).encode())
    return connection


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_process_started_anew_while_others_are_waited_for_takes_its_place(order):
    port = free_port()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(lambda: hosts.meet(f"127.0.0.1:{port}", 3, 0, 30).exchange(b"0"))
        hello(port, 1, 3).close()
        # Whichever of the two comes first.
        others = [pool.submit(lambda n=n: hosts.meet(f"127.0.0.1:{port}", 3, n, 30).exchange(b"%d" % n)) for n in order]
        others = others if order == (1, 2) else others[::-1]
        assert first.result() == [b"0", b"1", b"2"] == others[0].result() == others[1].result()


def test_a_process_that_dies_while_others_are_waited_for_does_not_hide_who_is_missing():
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(hosts.meet, f"127.0.0.1:{port}", 3, 0, 1.5)
        for number, count in ((1, 3), (1, 5)):
            connection = hello(port, number, count)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()  # resets the connection
        with pytest.raises(PeerError, match=r"process 2 of 3 did not come|processes 1, 2 of 3 did not come"):
            first.result()


def test_process_0_may_come_last():
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(lambda: hosts.meet(address, 2, 1, 10).exchange(b"b"))
        time.sleep(0.5)
        assert hosts.meet(address, 2, 0, 10).exchange(b"a") == [b"a", b"b"] == other.result()


def test_who_does_not_come_is_named_by_all_who_did():
    began = time.monotonic()
    found = together(4, lambda link: None, patience=1.0, numbers=(0, 2))
    assert 0.9 < time.monotonic() - began < 10
    for number, error in zip((0, 2), found, strict=True):
        assert isinstance(error, PeerError) and str(error).startswith(
            f"process {number} of 4: processes 1, 3 of 4 did not"
        )
        assert "within 1 seconds" in str(error)


def test_without_process_0_the_others_end():
    (error,) = together(2, lambda link: None, patience=0.5, numbers=(1,))
    assert isinstance(error, PeerError) and "process 1 of 2: process 0 did not answer at 127.0.0.1:" in str(error)


def test_strangers_are_sent_away_and_another_count_is_told():
    port = free_port()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(hosts.meet, f"127.0.0.1:{port}", 2, 0, 10)
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"", b"h" + (3).to_bytes(8, "big") + b"[1]"):
            for _ in range(50):
                try:
                    stranger = socket.create_connection(("127.0.0.1", port))
                    break
                except OSError:
                    time.sleep(0.05)
            with stranger:
                stranger.sendall(noise)
        with pytest.raises(PeerError, match="process 1 of 3 came to a run of 2; give every"):
            hosts.meet(f"127.0.0.1:{port}", 3, 1, 10)
        second = hosts.meet(f"127.0.0.1:{port}", 2, 1, 10)
        other = pool.submit(second.exchange, b"2")
        assert first.result().exchange(b"1") == [b"1", b"2"] == other.result()


@pytest.mark.parametrize("address", ["", "here", "here:", ":7000", "here:70000", "here:x"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match="expected HOST:PORT of process 0"):
        hosts.meet(address, 2, 0)


def test_a_number_too_large_and_a_port_in_use_are_refused():
    with pytest.raises(UserError, match="--process 2 of --processes 2: the processes are 0 to 1"):
        hosts.meet("127.0.0.1:7000", 2, 2)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UserError, match="process 0 cannot listen there"),
    ):
        hosts.meet(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0)


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("kind", [UserError, RunFolderError, NumericError])
def test_a_mistake_of_one_process_ends_all_with_the_same_sentence(which, kind):
    def act(link):
        if link.number == which:
            raise kind("the sentence")
        link.exchange()

    found = together(3, act)
    assert [(type(error), str(error)) for error in found] == [(kind, "the sentence")] * 3


@pytest.mark.parametrize("which", [0, 2])
def test_a_lost_process_is_named_with_the_step(which):
    def act(link):
        link.step = 7
        link.exchange()
        if link.number == which:
            link._left.set()  # who was killed notices nothing
            for connection in link._sockets.values():
                connection.shutdown(socket.SHUT_RDWR)  # as the kernel does for a process that was killed
            raise PeerError("dead")
        link.exchange()

    found = together(3, act)
    alive = [number for number in range(3) if number != which]
    assert [str(found[number]).split(";")[0] for number in alive] == [
        f"process {number} of 3: process {which} was lost at step 7" for number in alive
    ]
    assert "the same command on every host goes on from the last sealed step" in str(found[alive[0]])


def test_what_a_collective_raises_becomes_a_peer_error(monkeypatch):
    monkeypatch.setattr(link, "GRACE", 0.3)

    def act(link):
        link.exchange()
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")

    found = together(2, act)
    assert all(isinstance(error, PeerError) and "was lost" in str(error) for error in found)


@pytest.mark.parametrize("saved", [True, False])
def test_the_others_follow_the_first_and_may_ask_it_to_stop_and_all_stop_alike(saved):
    said = []

    def act(link):
        if link.first:
            link.lead({"step": 1})
            while not link.asked:
                time.sleep(0.01)
            raise Stopped(link.asked[0], saved)
        said.append((link.follow(), link.step))
        link.follow([15, 2])

    found = together(3, act)
    assert said == [({"step": 1}, 1)] * 2
    assert [(type(one), one.code, str(one)) for one in found] == [(Stopped, 143, str(Stopped(15, saved)))] * 3


def test_who_stops_at_once_stops_all():
    def act(link):
        if link.number == 1:
            raise Stopped(2, saved=False)
        link.exchange()

    assert [(type(one), one.code) for one in together(3, act)] == [(Stopped, 130)] * 3


def test_who_does_nothing_for_long_is_not_lost_and_who_says_nothing_is_named(monkeypatch):
    def act(link):
        time.sleep(2.5 if link.first else 0)
        link.exchange()
        if link.first:
            link._left.set()  # as a process that was stopped: its connections stay
            time.sleep(2.5)
            link._left.clear()
        link.exchange()

    silent = "process 1 of 2: process 0 said nothing for 1 seconds and counts as lost before the first step; the same"
    assert str(together(2, act, patience=1.0)[1]).startswith(silent)


def test_another_config_is_told_with_its_keys():
    found = together(2, lambda link: link.same("another config", {"seed": link.number, "steps": 3}))
    assert all(isinstance(error, UserError) and "process 1 has another config" in str(error) for error in found)
    assert "seed" in str(found[0]) and "steps" not in str(found[0])


def test_arrays_of_the_first_reach_all_bit_for_bit():
    import jax.numpy as jnp

    tree = {
        "a": np.array([[-0.0, np.nan]], np.float32),
        "b": (np.int32(3), np.zeros(0)),
        "c": jnp.ones(2, jnp.bfloat16),
    }
    found = together(2, lambda link: link.shared(tree if link.first else {**tree, "a": np.ones((1, 2), np.float32)}))
    for one in found:
        assert np.asarray(one["a"]).tobytes() == tree["a"].tobytes() and one["c"].dtype == tree["c"].dtype
        assert one["b"][0] == 3 and one["b"][1].shape == (0,)


def test_alone_nothing_waits():
    with Link() as link:
        assert link.first and link.exchange(b"x") == [b"x"] and link.shared({"a": 1}) == {"a": 1}
        link.same("another config", {"a": 1})
        link.lead({"step": 1})


def test_the_relay_stays_open_when_its_end_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as far:
        near = socket.create_connection(("127.0.0.1", hosts._relay(far.getsockname())))
        end, _ = far.accept()
        near.sendall(b"there")
        assert end.recv(5) == b"there"
        end.sendall(b"back")
        assert near.recv(4) == b"back"
        end.close()
    near.settimeout(0.5)
    with near, pytest.raises(TimeoutError):
        near.recv(1)


# --- two real processes


def environment(devices, cache):
    import jax

    # The tests' own flags and compiled programs, but for the number of devices.
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    return os.environ | {
        "XLA_FLAGS": flags,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(cache.parent)]),
        "MOBJREC_CACHE": str(cache),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


# A corpus that process 0 waits for; the other one does not come so far.
SLOW = """
import pathlib, time
def corpus(begun: str):
    pathlib.Path(begun).touch()
    time.sleep(200)
"""


def start(run, cache, *changes, devices=1, words=()):
    command = [sys.executable, "-m", "mobjrec", "train", str(TINY), "--run", str(run), "parallel.devices=null"]
    return subprocess.Popen(
        [*command, *changes, *words],
        env=environment(devices, cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def start_two(run, cache, *changes, numbers=(0, 1), patience=60):
    address = f"127.0.0.1:{free_port()}"
    common = ("--coordinator", address, "--processes", "2", "--patience", str(patience), "--process")
    return [start(run, cache, *changes, words=(*common, str(number))) for number in numbers]


def ended(processes):
    """[(exit code, stderr)]; none is left."""
    try:
        with ThreadPoolExecutor(len(processes)) as pool:
            said = list(pool.map(lambda process: process.communicate(timeout=LIMIT)[1], processes))
        return [(process.returncode, one) for process, one in zip(processes, said, strict=True)]
    finally:
        for process in processes:
            process.kill()


def finish(processes):
    for code, said in ended(processes):
        assert code == 0, said


def final(run):
    """Everything that is to be the same bit for bit: state, best parameters, metric rows."""
    leaves = {}
    for name in (checkpoint.RECENT, checkpoint.BEST):
        seal = checkpoint.sealed(run, name=name)
        like = {}
        for path, spec in seal["tree"].items():
            like[path] = np.zeros(spec["shape"], spec["dtype"])
        found, _ = checkpoint.latest(run, like, name=name)
        leaves |= {(name, seal["step"], path): np.asarray(leaf).tobytes() for path, leaf in found.items()}
    clocks = {"wait", "seconds", "lists_per_second"}
    return leaves, [{key: row[key] for key in row.keys() - clocks} for row in record.rows(run)]


def awaited(there, processes):
    """Wait until this holds; what a process that ends meanwhile says is the failure."""
    until = time.monotonic() + LIMIT
    while not there():
        if time.monotonic() > until or any(process.poll() is not None for process in processes):
            raise AssertionError([process.kill() or process.communicate() for process in processes])
        time.sleep(0.02)


def running(run, step, processes):
    """Wait until the run has recorded this step."""
    rows = lambda: record.rows(run) if (run / "metrics.jsonl").is_file() else ()
    awaited(lambda: any(row["step"] >= step for row in rows()), processes)


def assert_same(one, other):
    (leaves, rows), (others, other_rows) = final(one), final(other)
    assert leaves.keys() == others.keys()
    assert [key for key in leaves if leaves[key] != others[key]] == []
    assert rows == other_rows


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def alone(cache, tmp_path_factory):
    """The run of one process with two devices."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    finish([start(run, cache, devices=2)])
    return run


@pytest.fixture(scope="module")
def pair(cache, tmp_path_factory):
    """The same of two processes with a device each."""
    run = tmp_path_factory.mktemp("runs") / "pair"
    finish(start_two(run, cache))
    return run


def until(run, folder, step):
    """A copy of the run as it stood when this step had been sealed."""
    shutil.copytree(run, folder)
    checkpoint.forget(folder, step)
    (folder / "result.json").unlink()
    return folder


def test_a_config_is_read_before_any_device_is_taken(tmp_path):
    """Processes can be joined only as long as none of them has its devices."""
    told = "from pathlib import Path; from mobjrec.defaults import load; "
    told += f"load(Path({str(TINY)!r})); from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    done = subprocess.run(
        [sys.executable, "-c", told], env=environment(1, tmp_path), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout.split() == ["False"], done.stderr


@pytest.mark.slow
def test_two_processes_are_one_bit_for_bit(alone, pair):
    assert_same(pair, alone)
    assert (pair / "result.json").is_file() and json.loads((pair / "env.json").read_text())[0]["devices"][
        "processes"
    ] == 2


@pytest.mark.slow
def test_a_run_of_two_goes_on_with_one_and_the_other_way_round(alone, pair, cache, tmp_path):
    fewer, more = until(pair, tmp_path / "fewer", 5), until(alone, tmp_path / "more", 5)
    finish([start(fewer, cache, devices=2)])
    finish(start_two(more, cache))
    assert_same(fewer, alone)
    assert_same(more, alone)
    finish(start_two(more, cache))  # over already


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_peer_that_never_comes_is_named(number, cache, tmp_path):
    began = time.monotonic()
    ((code, said),) = ended(start_two(tmp_path / "run", cache, numbers=(number,), patience=2))
    assert (code, time.monotonic() - began < 30) == (5, True), said
    assert f"process {1 - number}" in said and "within 2 seconds" in said and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_peer_ends_the_other_and_the_command_goes_on(number, alone, cache, tmp_path):
    run = tmp_path / "run"
    processes = start_two(run, cache, "steps=400", "evaluate.every={steps: 400}")
    running(run, 20, processes)
    processes[number].kill()
    began = time.monotonic()
    found = ended(processes)
    assert time.monotonic() - began < 30
    code, said = found[1 - number]
    assert code == 5, said
    assert f"mobjrec: process {1 - number} of 2: process {number} was lost at step " in said
    assert "the same command on every host goes on" in said and "Traceback" not in said
    sealed = checkpoint.sealed(run)["step"]
    assert sealed >= 15
    finish(start_two(run, cache, f"steps={sealed + 3}", "evaluate.every={steps: 400}"))
    assert checkpoint.sealed(run)["step"] == sealed + 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_to_one_stops_both_at_one_step(number, cache, tmp_path):
    run = tmp_path / "run"
    processes = start_two(run, cache, "steps=400", "evaluate.every={steps: 400}", "save.every={steps: 400}")
    running(run, 5, processes)
    processes[number].send_signal(signal.SIGTERM)
    found = ended(processes)
    assert [code for code, _ in found] == [143, 143], found
    step = checkpoint.sealed(run)["step"]
    assert 5 <= step < 400 and max(row["step"] for row in record.rows(run)) == step


@pytest.mark.slow
@pytest.mark.parametrize(("number", "sent"), [(0, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_signal_while_process_0_prepares_ends_both_at_once(number, sent, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    begun = tmp_path / "begun"
    processes = start_two(tmp_path / "run", tmp_path / "cache", f"data={{use: 'slow:corpus', begun: {begun}}}")
    awaited(begun.is_file, processes)
    began = time.monotonic()
    processes[number].send_signal(sent)
    found = ended(processes)
    assert [code for code, _ in found] == [128 + sent] * 2, found
    assert time.monotonic() - began < 30
    assert all(f"stopped at once by {sent.name}; the same command" in said for _, said in found), found


@pytest.mark.slow
def test_a_process_0_that_stands_still_is_named_by_the_others(cache, tmp_path):
    run = tmp_path / "run"
    processes = start_two(run, cache, "steps=400", "evaluate.every={steps: 400}", patience=10)
    running(run, 5, processes)
    began = time.monotonic()
    processes[0].send_signal(signal.SIGSTOP)
    ((code, said),) = ended(processes[1:])
    assert code == 5 and time.monotonic() - began < 40, said
    assert "process 1 of 2: process 0 said nothing for 10 seconds and counts as lost at step " in said
    processes[0].send_signal(signal.SIGCONT)
    ((code, said),) = ended(processes[:1])
    assert code == 5 and "process 0 of 2: process 1 was lost at step " in said


@pytest.mark.slow
def test_what_process_0_refuses_ends_both(pair, cache, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(pair, other)
    found = ended(start_two(other, cache, "seed=1"))
    assert [code for code, _ in found] == [3, 3], found
    assert all("holds a run with another config:\n  seed: 0 there, 1 now" in said for _, said in found)
    found = ended(start_two(tmp_path / "new", cache, "parallel.map=pmap"))
    assert [code for code, _ in found] == [2, 2]
    assert all("parallel.map: pmap maps over the devices of one process" in said for _, said in found)


@pytest.mark.slow
def test_options_go_together(cache, tmp_path):
    ((code, said),) = ended([start(tmp_path / "run", cache, words=("--processes", "2"))])
    assert code == 2 and "--coordinator, --processes and --process go together" in said


def test_no_thread_of_a_meeting_outlives_it():
    before = threading.active_count()
    together(3, lambda link: link.exchange())
    until_gone = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until_gone:
        time.sleep(0.02)
    assert threading.active_count() <= before
