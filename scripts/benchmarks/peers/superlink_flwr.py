"""Flower 1.42's SuperLink with many nodes: the peer of `coordinator.py`.

Runs in an environment of its own, with Flower and without Nightshift. A SuperLink process on a SQLite database,
over TLS; this process plays the nodes through Flower's own HTTP client, every request signed with the node's key:

* join: register, activate;
* check-in: ask for messages when there are none, each over a TLS connection of its own, then over kept ones;
* plan: pull a message and its objects (a learning rate and as many steps as our plan names);
* upload: push a reply with one float32 array, its objects as the SuperLink asks for them.

The run and its messages are put into the database through Flower's own `LinkState`, as a ServerApp's calls do.
Nothing is added up here: Flower does that in the ServerApp's process.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import HEARTBEAT_MAX_INTERVAL, SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager

STARTUP_S = 60.0
BEAT_S = 10.0
BATCH = 16


def peak_rss_mb(pids: list[int]) -> float:
    """Highest resident memory of each of these processes so far, added up, MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1])
    return total / 1024


def cpu_s(pids: list[int]) -> float:
    """Processor seconds of these processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [pid, *itertools.chain.from_iterable(tree(int(child)) for child in children)]


def certificate(directory: Path) -> tuple[Path, Path, Path]:
    """A self-made authority's certificate for 127.0.0.1, P-256: authority, certificate, key."""
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
        )

    root = builder(root_name, root_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = builder(x509.Name([]), key.public_key()).add_extension(names, critical=True)
    paths = directory / "ca.pem", directory / "server.pem", directory / "server.key"
    paths[0].write_bytes(root.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(leaf.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class FlowerNode:
    """One node: a key, a client, and the calls of a SuperNode."""

    def __init__(self, address: str, authority: bytes) -> None:
        self._address = address
        self._authority = authority
        self._keys = generate_key_pairs()
        self._client: Any = None
        self.node: Any = None
        self.message: Any = None

    @property
    def client(self) -> Any:
        """Flower's client, connected on first use."""
        from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
        from flwr.supernode.fleet_http_client import FleetHttpClient
        from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

        if self._client is None:
            interceptors = [
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(*self._keys),
            ]
            self._client = FleetHttpClient.from_server_address(
                self._address, insecure=False, root_certificates=self._authority, interceptors=interceptors
            )
            self._client.__enter__()
        return self._client

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.__exit__(None, None, None)
            self._client = None

    def call(self, name: str, request: Any) -> Any:
        """Flower's client does a call; once more where the server let the kept connection go at that moment."""
        try:
            return getattr(self.client, name)(request)
        except httpx.RemoteProtocolError:
            self.close()
            return getattr(self.client, name)(request)

    def join(self) -> None:
        """Register and activate."""
        public = public_key_to_bytes(self._keys[1])
        self.call("RegisterNode", RegisterNodeFleetRequest(public_key=public))
        interval = HEARTBEAT_MAX_INTERVAL
        reply = self.call("ActivateNode", ActivateNodeRequest(public_key=public, heartbeat_interval=interval))
        self.node = Node(node_id=reply.node_id)

    def ask(self) -> None:
        """Ask for messages where there are none."""
        if self.call("PullMessages", PullMessagesRequest(node=self.node)).messages_list:
            raise RuntimeError("there was a message before any was sent")

    def pull(self, run_id: int) -> None:
        """Take a message and its objects."""
        from flwr.common.serde import message_from_proto

        self.close()
        reply = self.call("PullMessages", PullMessagesRequest(node=self.node))
        (message,) = reply.messages_list
        pending = [reply.message_object_trees[0]]
        while pending:
            part = pending.pop()
            pending += part.children
            request = PullObjectRequest(node=self.node, run_id=run_id, object_id=part.object_id)
            if not self.call("PullObject", request).object_available:
                raise RuntimeError("an object of the message is not there")
        self.message = message_from_proto(message)
        request = ConfirmMessageReceivedRequest(
            node=self.node, run_id=run_id, message_object_id=self.message.metadata.message_id
        )
        self.call("ConfirmMessageReceived", request)

    def prepare(self, number: int, values: int) -> tuple[Any, Any, dict[str, bytes]]:
        """A reply with a random vector: message, tree, objects by id."""
        from flwr.app.message.message import remove_content_from_message
        from flwr.common.serde import message_to_proto

        delta = np.random.default_rng(number).standard_normal(values, dtype=np.float32)
        reply = Message(RecordDict({"delta": ArrayRecord([delta])}), reply_to=self.message)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
            return message_to_proto(remove_content_from_message(reply)), get_object_tree(reply), objects

    def push(self, run_id: int, prepared: tuple[Any, Any, dict[str, bytes]]) -> None:
        """Send the reply and the objects that are wanted."""
        message, object_tree, objects = prepared
        reply = self.call(
            "PushMessages",
            PushMessagesRequest(
                node=self.node,
                messages_list=[message],
                message_object_trees=[object_tree],
                clientapp_runtime_list=[1.0],
            ),
        )
        for name in reply.objects_to_push:
            request = PushObjectRequest(
                node=self.node,
                run_id=run_id,
                session_id=reply.session_id,
                object_id=name,
                object_content=objects[name],
            )
            if not self.call("PushObject", request).stored:
                raise RuntimeError("the SuperLink did not store an object")


class Run:
    """A run and its messages, put into the SuperLink's database; kept alive as a ServerApp keeps it."""

    def __init__(self, database: str) -> None:
        objects = ObjectStoreFactory(database)
        self._state = LinkStateFactory(database, NoOpFederationManager(), objects).state()
        self.id = self._state.create_run(
            "bench/bench", "1.0.0", "0" * 64, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP
        )
        (self._task,) = [task.task_id for task in self._state.get_tasks() if task.run_id == self.id]
        if self._state.claim_task(self._task) is None or not self._state.activate_task(self._task):
            raise RuntimeError("the run could not be started")
        # The ServerApp's identity, which its messages carry.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = self.id, SUPERLINK_NODE_ID, self._task
        self._end = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            self._state.acknowledge_task_heartbeat(self._task)

    def send(self, nodes: list[FlowerNode]) -> None:
        """One message for every node."""
        from flwr.app.message.message import remove_content_from_message

        for node in nodes:
            session = self._state.start_session(self.id)  # it ends with the last object that it waits for
            content = RecordDict({"config": ConfigRecord({"steps": 60, "learning_rate": 5e-3})})
            message = Message(content, dst_node_id=node.node.node_id, message_type="train")
            with no_object_id_recompute():
                message.metadata.__dict__["_message_id"] = message.object_id
                parts = get_all_nested_objects(message)
                stored, missing = self._state.store_message_and_object_tree(
                    remove_content_from_message(message), get_object_tree(message), session
                )
                if not stored:
                    raise RuntimeError("a message was not stored")
                for name in missing:
                    self._state.store_object(self.id, session, name, parts[name].deflate())


def each(pool: ThreadPoolExecutor, items: Iterable[Any], step: Callable[[Any], object]) -> float:
    """Seconds that a step took for all items."""
    began = time.monotonic()
    list(pool.map(step, items))
    return time.monotonic() - began


def measure(devices: int, values: int, at_once: int, idle_s: float, directory: Path) -> dict[str, float]:
    """One SuperLink, this process as its nodes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    authority, own, key = certificate(directory)
    database = str(directory / "superlink.db")
    command = [
        str(Path(sys.executable).parent / "flower-superlink"), "--ssl-ca-certfile", str(authority), "--ssl-certfile",
        str(own), "--ssl-keyfile", str(key), "--database", database, "--isolation", "process", "--port", str(port),
    ]  # fmt: skip
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"FLWR_TELEMETRY_ENABLED": "0"})
    try:
        deadline = time.monotonic() + STARTUP_S
        while True:
            try:
                context = ssl.create_default_context(cafile=str(authority))
                with (
                    socket.create_connection(("127.0.0.1", port), 1) as raw,
                    context.wrap_socket(raw, server_hostname="127.0.0.1"),
                ):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("SuperLink did not start: " + (directory / "log").read_text()[-400:]) from None
                time.sleep(0.2)
        return play(
            process.pid,
            f"127.0.0.1:{port}",
            authority.read_bytes(),
            database,
            devices=devices,
            values=values,
            at_once=at_once,
            idle_s=idle_s,
        )
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it waits for connections that are kept
            process.kill()


def play(
    pid: int, address: str, authority: bytes, database: str, *, devices: int, values: int, at_once: int, idle_s: float
) -> dict[str, float]:
    """All steps, with their figures."""
    pids = tree(pid)
    figures: dict[str, float] = {"devices": devices, "rss_before_mb": peak_rss_mb(pids)}
    nodes = [FlowerNode(address, authority) for _ in range(devices)]
    threads = min(at_once, devices)
    with ThreadPoolExecutor(at_once) as pool:
        before = cpu_s(pids)
        figures["joins_per_s"] = devices / each(pool, nodes, FlowerNode.join)
        figures["join_cpu_ms"] = 1e3 * (cpu_s(pids) - before) / devices
        for prefix, reconnect in (("", True), ("kept_", False)):
            end, before, began = time.monotonic() + idle_s, cpu_s(pids), time.monotonic()

            def idle(thread: int, end: float = end, reconnect: bool = reconnect) -> int:
                count = 0
                for node in itertools.cycle(nodes[thread::threads]):
                    if time.monotonic() > end:
                        break
                    if reconnect:
                        node.close()
                    node.ask()
                    count += 1
                return count

            count = sum(pool.map(idle, range(threads)))
            figures[prefix + "checkins_per_s"] = count / (time.monotonic() - began)
            figures[prefix + "checkin_cpu_ms"] = 1e3 * (cpu_s(pids) - before) / count
        run = Run(database)
        run.send(nodes)
        before = cpu_s(pids)
        figures["plans_per_s"] = devices / each(pool, nodes, lambda node: node.pull(run.id))
        figures["plan_cpu_ms"] = 1e3 * (cpu_s(pids) - before) / devices
        before, wall_s, sent = cpu_s(pids), 0.0, 0
        for start in range(0, devices, BATCH):
            numbers = range(start, min(start + BATCH, devices))
            prepared = {number: nodes[number].prepare(number, values) for number in numbers}
            sent += sum(len(part) for _, _, objects in prepared.values() for part in objects.values())
            wall_s += each(pool, numbers, lambda number: nodes[number].push(run.id, prepared[number]))  # noqa: B023 - run at once
        figures["upload_mb_per_s"] = sent / 1e6 / wall_s
        figures["upload_cpu_ms_per_mb"] = 1e3 * (cpu_s(pids) - before) / (sent / 1e6)
        figures["upload_mb"] = sent / 1e6 / devices
    figures["rss_mb"] = peak_rss_mb(pids)
    return figures


def main() -> None:
    """Parse, measure, print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--values", type=int, required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--idle-s", type=float, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flower-load-") as directory:
        shape = arguments.devices, arguments.values, arguments.at_once, arguments.idle_s
        print(json.dumps(measure(*shape, Path(directory))))


if __name__ == "__main__":
    main()
