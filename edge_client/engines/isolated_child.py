"""The engine process: `python -m edge_client.engines.isolated_child DESCRIPTOR`.

One thread reads requests, so that a cancellation, or the end of the agent, is seen
while the native library works; the main thread does the work. The library is
loaded here and nowhere else.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import resource
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from edge_client.data.tokens import TokenExample
from edge_client.engines.engine import EngineKind
from edge_client.engines.frames import MAX_REQUEST_BYTES, Channel, ChannelClosedError, Kind, unpack_lists
from edge_client.engines.sampling import SamplingSettings
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters.formats import from_safetensors, layout_of
from nightshift.protocol.errors import NightshiftError

if TYPE_CHECKING:
    from edge_client.engines.engine import Engine

# The kernel should end this process rather than the agent when memory runs out (proc_pid_oom_score_adj(5)).
_OOM_SCORE = "600"
_PR_SET_DUMPABLE = 4
_MESSAGE_CHARACTERS = 2000


def main(descriptor: int) -> int:
    """Answers requests until the agent is gone."""
    _harden()
    worker = _Worker(Channel(socket.socket(fileno=descriptor)))
    threading.Thread(target=worker.read, daemon=True).start()
    worker.work()


def _harden() -> None:
    """A crash leaves no memory image behind, which would hold the conversation."""
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c stops an answer; the agent says so itself
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class _Worker:
    """The engine and the request it works on."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._requests: queue.SimpleQueue[tuple[Kind, bytes]] = queue.SimpleQueue()
        self._cancelled = 0
        self._engine: Engine | None = None

    def read(self) -> NoReturn:
        """Takes requests off the socket; runs in a thread of its own and ends the process."""
        try:
            while True:
                kind, payload = self._channel.receive(MAX_REQUEST_BYTES)
                if kind is Kind.CANCEL:
                    self._cancelled = int.from_bytes(payload, "little")
                else:
                    self._requests.put((kind, payload))
        except (ChannelClosedError, NightshiftError):
            # The agent is gone, or talks nonsense: nothing here is worth keeping.
            os._exit(0)

    def work(self) -> NoReturn:
        """Answers one request after the other."""
        while True:
            kind, payload = self._requests.get()
            try:
                self._answer(kind, payload)
            except NightshiftError as error:
                self._fail(type(error).__name__, str(error))
            except MemoryError:
                self._fail("MemoryError", "the engine process ran out of memory")
            except ChannelClosedError:
                os._exit(0)
            except Exception as error:  # noqa: BLE001 - whatever it is must be reported, without text that may be private
                self._fail("EngineError", f"internal error {type(error).__name__} in the engine process")

    def _fail(self, kind: str, message: str) -> None:
        body = {"kind": kind, "message": message[:_MESSAGE_CHARACTERS]}
        self._channel.send(Kind.FAILED, json.dumps(body).encode())

    def _answer(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.OPEN:
            self._engine = _open(payload)
            self._channel.send(Kind.READY)
            return
        assert self._engine is not None, "the agent opens first"
        if kind is Kind.GENERATE:
            self._generate(self._engine, payload)
        elif kind is Kind.ADAPTER:
            layout = layout_of(payload) if payload else None
            self._engine.set_adapter(from_safetensors(payload, layout) if layout is not None else None, layout)
            self._channel.send(Kind.DONE)
        elif kind is Kind.LOSSES:
            lists, marks = unpack_lists(payload)
            self._send_array(np.concatenate(self._engine.token_losses(_examples(lists, marks)), dtype="<f4"))
        elif kind is Kind.SCORE:
            prompts, rest = unpack_lists(payload)
            candidates, _ = unpack_lists(rest)
            self._send_array(self._engine.score(prompts, candidates).astype("<f8"))

    def _send_array(self, array: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> None:
        self._channel.send(Kind.ARRAY, array.tobytes())

    def _generate(self, engine: Engine, payload: bytes) -> None:
        number, size = (int.from_bytes(payload[at : at + 4], "little") for at in (0, 4))
        sampling = SamplingSettings(**json.loads(payload[8 : 8 + size]))
        (prompt,), _ = unpack_lists(payload[8 + size :])
        if self._cancelled != number:
            for token in engine.generate(prompt, sampling):
                if self._cancelled == number:
                    break
                self._channel.send(Kind.TOKEN, token.to_bytes(4, "little"))
        self._channel.send(Kind.DONE)


def _open(payload: bytes) -> Engine:
    request = json.loads(payload)
    package = ModelPackage.open(Path(request["package"]), verify=False)
    from edge_client.engines.sessions import RuntimeSettings

    runtime = RuntimeSettings(threads=request["threads"])
    if EngineKind(request["engine"]) is EngineKind.LLAMA:
        from edge_client.engines.llama_engine import LlamaEngine

        return LlamaEngine(package, runtime, context_tokens=request["context_tokens"])
    from edge_client.engines.onnx_engine import OnnxEngine

    return OnnxEngine(package, runtime, context_tokens=request["context_tokens"])


def _examples(lists: list[list[int]], marks: bytes) -> list[TokenExample]:
    answer = np.frombuffer(marks, dtype=np.bool_)
    ends = np.cumsum([len(tokens) for tokens in lists])
    return [
        TokenExample(np.array(tokens, dtype=np.int64), answer[end - len(tokens) : end])
        for tokens, end in zip(lists, ends, strict=True)
    ]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
