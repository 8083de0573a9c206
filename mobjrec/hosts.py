"""Several processes, on one host or many, as one run: how they meet.

Process 0 listens on the coordinator's address, the others connect. `jax.distributed` joins them only then, since it aborts
the process (SIGABRT) when a peer never comes. Whoever can reach the address can take part, as with `jax.distributed`
itself: a network of one's own is assumed.
"""

import json
import socket
import threading
import time

from mobjrec.errors import PeerError, UserError
from mobjrec.link import Link, receive, send

# Seconds in which a peer is known to be gone when its machine vanishes without a word.
SILENT = 20


def meet(address: str, count: int, number: int, patience: float = 120.0) -> Link:
    """The link between `count` processes that were all started with this address, HOST:PORT of process 0.

    PeerError on every process that came where others did not within `patience` seconds, by their numbers. UserError
    where address and numbers make no sense together.
    """
    place = parsed(address, count, number)
    until = time.monotonic() + patience
    if number:
        return Link(number, count, {0: _called(place, address, count, number, until, patience)}, patience)
    try:
        listener = socket.create_server(place)
    except OSError as error:
        raise UserError(
            f"--coordinator {address}: process 0 cannot listen there ({error.strerror}); it has to be a free port of the "
            "host that process 0 runs on"
        ) from error
    with listener:
        came = _awaited(listener, count, until)
    missing = [str(other) for other in range(1, count) if other not in came]
    if missing:
        who = f"process {missing[0]}" if len(missing) == 1 else f"processes {', '.join(missing)}"
        text = f"{who} of {count} did not come to {address} within {patience:g} seconds; start all of them"
        for connection in came.values():
            send(connection, b"e", text.encode())
        raise PeerError(f"process 0 of {count}: {text}")
    gone = [str(other) for other, connection in came.items() if not send(connection, b"g", b"")]
    if gone:
        raise PeerError(f"process 0 of {count}: process {', '.join(gone)} came and was lost again; start all of them")
    for connection in came.values():
        connection.settimeout(None)
    return Link(0, count, came, patience)


def parsed(address: str, count: int, number: int) -> tuple[str, int]:
    """(host, port). UserError for another form, or a number that is not one of `count`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator {address}: expected HOST:PORT of process 0, such as 10.0.0.1:7000")
    if not 0 <= number < count:
        raise UserError(f"--process {number} of --processes {count}: the processes are 0 to {count - 1}")
    return host.strip("[]"), int(port)


def join(link: Link, address: str) -> None:
    """Make the devices of all processes JAX's devices. To be called once, before JAX is used."""
    import jax

    place = parsed(address, link.count, link.number)
    jax.distributed.initialize(
        address if link.first else f"127.0.0.1:{_relay(place)}",
        num_processes=link.count,
        process_id=link.number,
        coordinator_bind_address=address,
    )


def _gone(connection: socket.socket) -> bool:
    """Whether the other side has hung up: one that waits says nothing."""
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(5)


def _awaited(listener: socket.socket, count: int, until: float) -> dict[int, socket.socket]:
    """The connections of those that came in time; whoever says nothing of the kind is sent away."""
    came: dict[int, socket.socket] = {}
    while (left := until - time.monotonic()) > 0:
        if len(came) == count - 1:
            lost = [number for number, connection in came.items() if _gone(connection)]
            if not lost:
                break
            for number in lost:
                came.pop(number).close()  # it may be started anew
        listener.settimeout(left)
        try:
            connection = listener.accept()[0]
        except OSError:
            break
        connection.settimeout(5)
        try:
            kind, payload = receive(connection, most=100)
            number, processes = map(int, json.loads(payload))
        except (OSError, ValueError, TypeError):
            connection.close()
            continue
        if number in came and _gone(came[number]):
            came.pop(number).close()  # started anew while others are waited for
        if kind != b"h" or processes != count or number in came or not 0 < number < count:
            text = f"process {number} of {processes} came to a run of {count}" + (" a second time" * (number in came))
            send(connection, b"e", f"{text}; give every process the same --processes and its own --process".encode())
            connection.close()
            continue
        came[number] = _kept_alive(connection)
    return came


def _called(
    place: tuple[str, int], address: str, count: int, number: int, until: float, patience: float
) -> socket.socket:
    """The connection to process 0, once all have come."""
    while (left := until - time.monotonic()) > 0:
        try:
            connection = _kept_alive(socket.create_connection(place, timeout=left))
        except OSError:
            time.sleep(0.2)
            continue
        try:
            send(connection, b"h", json.dumps([number, count]).encode())
            # Process 0 may have come later, and waits for the others as long from then.
            connection.settimeout(left + patience + 5)
            kind, payload = receive(connection, most=1000)
        except OSError:
            connection.close()
            continue
        if kind != b"g":
            raise PeerError(f"process {number} of {count}: {payload.decode(errors='replace')}")
        connection.settimeout(None)
        return connection
    raise PeerError(
        f"process {number} of {count}: process 0 did not answer at {address} within {patience:g} seconds; start it there "
        "with --process 0, and see that this host can reach that port"
    )


def _kept_alive(connection: socket.socket) -> socket.socket:
    """The kernel asks an idle peer, so that a machine that lost its power is noticed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    quarter = SILENT // 4
    for name, value in (("KEEPIDLE", quarter), ("KEEPINTVL", quarter), ("KEEPCNT", 3), ("USER_TIMEOUT", SILENT * 1000)):
        if hasattr(socket, f"TCP_{name}"):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)
    return connection


def _relay(place: tuple[str, int]) -> int:
    """A port of this host that leads to `place` and stays open when that is gone, for JAX to speak with process 0.

    JAX's client aborts the process the moment its connection closes, before Python can say which peer was lost.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def pump(source: socket.socket, target: socket.socket, until_closed: socket.socket | None) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        if until_closed is not None:
            until_closed.close()

    def lead(near: socket.socket) -> None:
        for _ in range(600):
            try:
                far = socket.create_connection(place)
                break
            except OSError:
                time.sleep(0.1)
        else:
            return
        kept.extend((near, far))
        threading.Thread(target=pump, args=(near, far, far), daemon=True).start()
        pump(far, near, None)

    def serve() -> None:
        while True:
            threading.Thread(target=lead, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]
