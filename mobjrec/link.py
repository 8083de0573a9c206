"""One of several processes of a run, and its control connections: what they say to each other, and why one ended.

Process 0 has a connection to every other one. They stay open for the whole run, and tell at once when a process is gone.
"""

import json
import os
import queue
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

import numpy as np

from mobjrec.errors import MISTAKES, PeerError, Stopped, UserError

# Seconds in which the main thread may end by itself once a peer is lost: inside a collective it may hang for good.
GRACE = 5.0
KINDS = {kind.__name__: kind for kind in (*MISTAKES, Stopped)}
AGAIN = "the same command on every host goes on from the last sealed step"


@final
class Link:
    """This process among `count`. first: it is process 0, which alone writes and decides   step: the one that runs

    asked: signals that others were sent, at process 0   patience: seconds after which a silent one counts as lost; each
    says that it is alive four times in that time, whatever it does

    Leaving a `with` block tells the others whether this process is done or why it failed; they end for the same reason.
    """

    def __init__(
        self,
        number: int = 0,
        count: int = 1,
        sockets: Mapping[int, socket.socket] = MappingProxyType({}),
        patience: float = 120.0,
    ):
        self.number, self.count, self.first = number, count, number == 0
        self.step: int | None = None
        self.asked: list[int] = []
        self._sockets, self._patience, self._asking = dict(sockets), max(patience, 1.0), False
        self._inbox = {peer: queue.SimpleQueue() for peer in self._sockets}
        self._fault: Exception | None = None
        # A large message to one peer must not keep what another is told from it.
        self._left, self._locks = threading.Event(), {peer: threading.Lock() for peer in self._sockets}
        for peer, connection in self._sockets.items():
            # Of receiving alone: a timeout of the socket would bound a whole message that is sent, too.
            limit = struct.pack("ll", int(self._patience), int(self._patience % 1 * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            threading.Thread(target=self._listen, args=(peer,), daemon=True).start()
        if self._sockets:
            threading.Thread(target=self._live, daemon=True).start()

    def exchange(self, payload: bytes = b"") -> list[bytes]:
        """Every process' payload in their order; all wait here for all, as long as all live.

        PeerError where one is lost, or whatever mistake ended another one.
        """
        if self.first:
            every = [payload, *(self._next(peer) for peer in sorted(self._sockets))]
            for peer in self._sockets:
                for one in every:
                    self._tell(peer, b"x", one)
        else:
            self._tell(0, b"x", payload)
            every = [self._next(0) for _ in range(self.count)]
        return every

    def same(self, what: str, values: Mapping[str, Any]) -> None:
        """UserError on all processes where one has other values than process 0, naming it and the keys."""
        every = [json.loads(one) for one in self.exchange(json.dumps(values).encode())]
        for number, other in enumerate(every):
            keys = sorted(key for key in other.keys() | every[0].keys() if other.get(key) != every[0].get(key))
            if keys:
                raise UserError(
                    f"process {number} has {what} other than process 0: {', '.join(keys[:10])}; give every host the same "
                    "config and the same files"
                )

    def shared(self, tree: Any) -> Any:
        """Process 0's arrays, bit for bit, in the form of every process' own tree."""
        if self.count == 1:
            return tree
        import jax

        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        whole = self.exchange(b"".join(leaf.tobytes() for leaf in leaves if self.first))[0]
        ends = np.cumsum([leaf.nbytes for leaf in leaves]).tolist()
        found = [
            np.frombuffer(whole[end - leaf.nbytes : end], leaf.dtype).reshape(leaf.shape)
            for leaf, end in zip(leaves, ends, strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(tree), found)

    def lead(self, said: Mapping[str, Any]) -> None:
        """Process 0 says what comes next: {"step": N}, or {"result": ...}, the end."""
        self.step = said.get("step", self.step)
        for peer in self._sockets:
            self._tell(peer, b"x", json.dumps(said).encode())

    def follow(self, asked: Sequence[int] = ()) -> dict[str, Any]:
        """What process 0 says next. asked: signals; it is told the first of them, which then stands in its `asked`.

        PeerError where process 0 is lost; else the mistake or the signal that ended it.
        """
        said = json.loads(self._next(0, asked))
        self.step = said.get("step", self.step)
        return said

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        """Tell the others why; PeerError in place of whatever a collective raises when a peer is lost."""
        if self.count > 1 and isinstance(error, Exception) and not hasattr(error, "code"):
            until = time.monotonic() + GRACE * ("Gloo" in str(error))
            while self._fault is None and time.monotonic() < until:
                time.sleep(0.05)
            raised = self._fault or (self._lost(None, "was lost") if "Gloo" in str(error) else None)
            if raised is not None:
                self._leave(raised)
                raise raised from error
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        self._left.set()
        told = b"b", b""
        if isinstance(error, Stopped):
            told = b"e", json.dumps({"kind": Stopped.__name__, "given": [error.number, error.saved]}).encode()
        elif isinstance(error, MISTAKES):
            told = b"e", json.dumps({"kind": type(error).__name__, "given": [str(error)]}).encode()
        elif error is not None:
            told = b"e", json.dumps({"lost": self.number, "how": "was lost"}).encode()
        for peer in self._sockets if self._fault is None else ():
            self._tell(peer, *told)

    def _lost(self, peer: int | None, how: str) -> PeerError:
        when = "before the first step" if self.step is None else f"at step {self.step}"
        who = "another process" if peer is None else f"process {peer}"
        return PeerError(f"process {self.number} of {self.count}: {who} {how} {when}; {AGAIN}")

    def _tell(self, peer: int, kind: bytes, payload: bytes) -> None:
        with self._locks[peer]:
            told = send(self._sockets[peer], kind, payload)
        if not told:
            self._failed({"lost": peer, "how": "was lost"})

    def _next(self, peer: int, asked: Sequence[int] = ()) -> bytes:
        while True:
            if asked and not self._asking:
                self._asking = True
                self._tell(peer, b"s", str(asked[0]).encode())
            try:
                found = self._inbox[peer].get(timeout=0.1)
            except queue.Empty:
                if self._fault is not None:
                    raise self._fault from None
                continue
            if found is None:  # it left, and nobody was to wait for it any more
                raise self._lost(peer, "was lost")
            return found

    def _live(self) -> None:
        while not self._left.wait(self._patience / 4):
            for peer in self._sockets:
                self._tell(peer, b"l", b"")

    def _listen(self, peer: int) -> None:
        try:
            while True:
                kind, payload = receive(self._sockets[peer])
                if kind == b"b":
                    self._inbox[peer].put(None)
                    return
                if kind == b"e":
                    self._failed(json.loads(payload))
                    return
                if kind == b"s":
                    self.asked.append(int(payload))
                elif kind == b"x":
                    self._inbox[peer].put(payload)
        except BlockingIOError:
            self._failed({"lost": peer, "how": f"said nothing for {self._patience:g} seconds and counts as lost"})
        except OSError:
            self._failed({"lost": peer, "how": "was lost"})

    def _failed(self, said: dict[str, Any]) -> None:
        """Note why the run is over, pass it on, and end the process if the main thread does not."""
        if self._fault is not None or self._left.is_set():
            return
        self._fault = KINDS[said["kind"]](*said["given"]) if "kind" in said else self._lost(said["lost"], said["how"])
        for peer in self._sockets if self.first else ():
            self._tell(peer, b"e", json.dumps(said).encode())
        timer = threading.Timer(GRACE, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        if not self._left.is_set():
            print(f"mobjrec: {self._fault}", file=sys.stderr, flush=True)
            os._exit(self._fault.code)


def send(connection: socket.socket, kind: bytes, payload: bytes) -> bool:
    """Whether the other side could be told; it may be gone already."""
    try:
        connection.sendall(kind + len(payload).to_bytes(8, "big"))
        connection.sendall(payload)
    except OSError:
        return False
    return True


def receive(connection: socket.socket, most: int = 1 << 40) -> tuple[bytes, bytes]:
    """(kind, payload) of one message. OSError where the peer is gone, or says more than `most` bytes."""
    head = _bytes(connection, 9)
    size = int.from_bytes(head[1:], "big")
    if size > most:
        raise OSError("not a message of ours")
    return bytes(head[:1]), bytes(_bytes(connection, size))


def _bytes(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        got = connection.recv_into(view[done:])
        if not got:
            raise ConnectionResetError("the peer is gone")
        done += got
    return data
