"""Flower 1.42's SecAgg+ in one process, without network: the peer of `secagg.py`.

Runs in an environment of its own, with Flower and without Nightshift. The server workflow
talks to `secaggplus_mod` of every client directly. CPU seconds of the server are those of the
whole workflow less those inside the clients and less the copying of messages. Flower's
defaults: clipping range 8, 2^22 quantisation steps; 7 shares, 5 to reconstruct.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import resource
import sys
import time

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.server import LegacyContext, ServerConfig
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity

SCALE = 1e-2
SHARES, THRESHOLD = 7, 5


def vector(device: int, length: int) -> np.ndarray:
    """The same vector as `secagg.vector` gives."""
    return (np.random.default_rng(device).standard_normal(length, dtype=np.float32) * np.float32(SCALE)).astype(
        np.float32
    )


class Silent(ClientProxy):  # type: ignore[misc]  # the peer is not installed where types are checked
    """A client that the strategy can sample; nothing is ever sent through it."""

    def __init__(self, node_id: int) -> None:
        super().__init__(str(node_id))
        self.node_id = node_id

    def get_properties(self, *_: object) -> None:
        """Not used."""

    def get_parameters(self, *_: object) -> None:
        """Not used."""

    def fit(self, *_: object) -> None:
        """Not used."""

    def evaluate(self, *_: object) -> None:
        """Not used."""

    def reconnect(self, *_: object) -> None:
        """Not used."""


def context(node_id: int) -> Context:
    """An empty context."""
    return Context(run_id=1, node_id=node_id, node_config={}, state=RecordDict(), run_config={})


class Grid:
    """Hands each message to its client and takes the time."""

    def __init__(self, devices: int, length: int) -> None:
        self.length = length
        self.contexts = {device: context(device) for device in range(1, devices + 1)}
        self.client_s = 0.0
        self.other_s = 0.0
        self.bytes = 0

    def send_and_receive(self, messages: list[Message], **_: object) -> list[Message]:
        """One stage for every client."""
        replies = []
        for message in messages:
            before = time.process_time()
            node = message.metadata.dst_node_id
            received = Message(
                copy.deepcopy(message.content), dst_node_id=node, message_type=message.metadata.message_type
            )
            received.metadata._src_node_id = 0
            received.metadata._message_id = "x"
            received.metadata._run_id = 1
            message.metadata._src_node_id = 1
            message.metadata._message_id = "x"
            inputs = vector(node - 1, self.length)
            started = time.process_time()
            self.other_s += started - before
            reply = secaggplus_mod(received, self.contexts[node], lambda m, _c, x=inputs: self.train(m, x))
            ended = time.process_time()
            self.client_s += ended - started
            reply.metadata._src_node_id = node
            config = reply.content.config_records[RECORD_KEY_CONFIGS]
            self.bytes += sum(len(x) for v in config.values() if isinstance(v, list) for x in v if isinstance(x, bytes))
            replies.append(reply)
            self.other_s += time.process_time() - ended
        return replies

    @staticmethod
    def train(message: Message, inputs: np.ndarray) -> Message:
        """What the client app returns: the vector."""
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([inputs]), 100, {"loss": 1.23})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def main() -> None:
    """Measure one round and print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    devices, length = arguments.devices, arguments.length
    manager = SimpleClientManager()
    for device in range(1, devices + 1):
        manager.register(Silent(device))
    strategy = FedAvg(fraction_fit=1.0, min_fit_clients=devices, min_available_clients=devices)
    server = LegacyContext(
        context=context(0), config=ServerConfig(num_rounds=1), strategy=strategy, client_manager=manager
    )
    start = ndarrays_to_parameters([np.zeros(length, np.float32)])
    server.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(start, keep_input=True)
    server.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    grid = Grid(devices, length)
    workflow = SecAggPlusWorkflow(num_shares=SHARES, reconstruction_threshold=THRESHOLD)
    before = time.process_time()
    workflow(grid, server)
    total_s = time.process_time() - before
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20
    record = server.state.array_records[MAIN_PARAMS_RECORD]
    opened = parameters_to_ndarrays(compat.arrayrecord_to_parameters(record, keep_input=True))[0]
    mean = np.zeros(length)
    for device in range(devices):
        mean += vector(device, length) / devices
    print(
        json.dumps(
            {
                "device_cpu_s": grid.client_s / devices,
                "coordinator_cpu_s": total_s - grid.client_s - grid.other_s,
                "bytes_per_value": grid.bytes / devices / length,
                "coordinator_rss_mb": rss_mb,
                "rms_error": float(np.sqrt(np.mean((opened - mean) ** 2))),
            }
        )
    )


if __name__ == "__main__":
    main()
