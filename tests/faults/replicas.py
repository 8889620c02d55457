"""Redis on several servers: a master with a replica and Sentinels, and a cluster of three; all on loopback, all real."""

from __future__ import annotations

import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from asyncworker.lifeline import Child
from asyncworker.queue.server import find_binary

HOST = "127.0.0.1"
PATIENCE = 60.0
SERVICE = "jobs"


def until(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if seen():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, nor on the same plus 10,000, where nodes of a cluster talk."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind((HOST, 0))
            port = one.getsockname()[1]
            try:
                other.bind((HOST, port + 10_000))
            except (OSError, OverflowError):
                continue
            if port not in found:
                found.append(port)
    return found


class Node:
    """A server on a port of its own."""

    def __init__(self, place: Path, port: int, *, sentinel: bool = False, **settings: str) -> None:
        self.port = port
        self.client = redis.Redis(HOST, port, socket_timeout=PATIENCE)
        conf = place / f"{port}.conf"
        settings = {"port": str(port), "bind": HOST, "dir": str(place), "save": "''"} | settings
        if sentinel:
            del settings["save"]
        conf.write_text("".join(f"{key.replace('_', '-')} {value}\n" for key, value in settings.items()))
        with (place / f"{port}.log").open("ab") as log:
            command = [find_binary(), str(conf), *(["--sentinel"] if sentinel else [])]
            self._child = Child(command, cwd=place, stdout=log, stderr=log)
        until(self.client.ping)

    def kill(self) -> None:
        self._child.stop(signal.SIGKILL)
        self.client.close()


class Replicated:
    """A master, a replica, and three Sentinels who watch them. Attributes: ``url``, ``nodes`` (the first is the master)."""

    def __init__(self, place: Path, started: ExitStack) -> None:
        ports = free_ports(5)

        def start(port: int, **settings: str) -> Node:
            node = Node(place, port, **settings)
            started.callback(node.kill)
            return node

        master = start(ports[0])
        self.nodes = [master, start(ports[1], replicaof=f"{HOST} {ports[0]}", repl_diskless_sync_delay="0")]
        until(lambda: self.nodes[1].client.info("replication")["master_link_status"] == "up")
        self.sentinels = []
        for port in ports[2:]:
            watch = Node(place, port, sentinel=True)
            started.callback(watch.kill)
            for period in ("INFO", "PUBLISH", "PING"):
                watch.client.execute_command("SENTINEL", "DEBUG", f"{period}-PERIOD", 200)
            watch.client.execute_command("SENTINEL", "MONITOR", SERVICE, HOST, ports[0], 2)
            watch.client.execute_command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", 500)
            watch.client.execute_command("SENTINEL", "SET", SERVICE, "failover-timeout", 3000)
            self.sentinels.append(watch)
        until(lambda: all(self._sees(watch) for watch in self.sentinels))
        self.url = f"redis+sentinel://{','.join(f'{HOST}:{port}' for port in ports[2:])}/{SERVICE}"

    @staticmethod
    def _sees(watch: Node) -> bool:
        seen = watch.client.sentinel_master(SERVICE)
        return bool(seen["num-slaves"] == 1 and seen["num-other-sentinels"] == 2)

    def fail_over(self) -> None:
        """Kill the master; returns when the Sentinels have made another."""
        self.nodes[0].kill()
        until(lambda: self.nodes[1].client.info("replication")["role"] == "master")


@contextmanager
def replicated() -> Iterator[Replicated]:
    with tempfile.TemporaryDirectory(prefix="asyncworker-") as place, ExitStack() as started:
        yield Replicated(Path(place), started)


class Clustered:
    """Three masters of a cluster. Attributes: ``url``, ``nodes``."""

    def __init__(self, place: Path, started: ExitStack) -> None:
        self.nodes = []
        for port in free_ports(3):
            self.nodes.append(Node(place, port, cluster_enabled="yes", cluster_config_file=f"{port}.nodes"))
            started.callback(self.nodes[-1].kill)
        ends = [0, 5461, 10923, 16384]
        for number, node in enumerate(self.nodes):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", ends[number], ends[number + 1] - 1)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.client.execute_command("CLUSTER", "MEET", HOST, self.nodes[0].port)
        until(lambda: all(self._state(node)["cluster_state"] == "ok" for node in self.nodes))
        until(lambda: all(self._state(node)["cluster_known_nodes"] == "3" for node in self.nodes))
        self.url = f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}"

    @staticmethod
    def _state(node: Node) -> dict[str, str]:
        said: dict[str, str] = node.client.execute_command("CLUSTER INFO")
        return said

    def owner(self, slot: int) -> Node:
        said = self.nodes[0].client.execute_command("CLUSTER SLOTS")
        port = next(owner[1] for first, last, owner, *_ in said if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def move(self, slot: int) -> None:
        """Move a slot with all its keys to another node, at one blow; returns when all know it."""
        old = self.owner(slot)
        new = next(node for node in self.nodes if node is not old)
        name = new.client.execute_command("CLUSTER", "MYID")
        old.client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)
        until(lambda: self.owner(slot) is new)


@contextmanager
def clustered() -> Iterator[Clustered]:
    with tempfile.TemporaryDirectory(prefix="asyncworker-") as place, ExitStack() as started:
        yield Clustered(Path(place), started)
