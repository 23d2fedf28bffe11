"""An engine in a process of its own: whatever kills the native library leaves the agent standing.

A library that was built for another processor ends its process with SIGILL, a
broken one with SIGSEGV or SIGABRT, and a model too large for the memory makes the
kernel end it with SIGKILL. Here each becomes an error with a sentence, and
the next use starts a new process with the same adapter.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from edge_client.data.tokens import TokenExample
from edge_client.engines import errors
from edge_client.engines.engine import Engine, EngineKind, Scores, check_prompt
from edge_client.engines.errors import EngineCrashedError, EngineError, EngineUnavailableError
from edge_client.engines.frames import SMALL_BYTES, Channel, ChannelClosedError, Kind, pack_lists
from edge_client.engines.processor import lacking_sentence
from edge_client.engines.sampling import SamplingSettings
from nightshift.packages.package import ModelPackage
from nightshift.protocol import errors as protocol_errors
from nightshift.protocol.adapters import AdapterLayout, Tensors
from nightshift.protocol.adapters.errors import AdapterError
from nightshift.protocol.adapters.formats import to_safetensors

CANCEL_WITHIN_S = 2.0
_START_WITHIN_S = 300.0  # a large model comes from an SD card at 20 MB/s
_EXIT_WITHIN_S = 5.0


class IsolatedEngine(Engine):
    """A model package in an engine process; see `Engine`.

    The process starts on first use. One thread at a time may use the engine;
    `interrupt` may be called from any.

    Args:
        package: the model.
        kind: the runtime.
        threads: of the runtime; 0 takes every core.
        context_tokens: longest sequence; 0 takes the model's own.
    """

    def __init__(self, package: ModelPackage, kind: EngineKind, *, threads: int = 0, context_tokens: int = 0) -> None:
        self.kind = kind
        self._dimensions = package.manifest.dimensions
        longest = self._dimensions.context
        self.context_tokens = min(context_tokens, longest) if context_tokens else longest
        self._opening: dict[str, object] = {
            "engine": kind.value,
            "package": str(package.directory.absolute()),
            "threads": threads,
            "context_tokens": self.context_tokens,
        }
        self._adapter = b""
        self._process: _Process | None = None

    @property
    def process_id(self) -> int | None:
        """The engine process, while there is one."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def start(self) -> None:
        """Starts the process now instead of on first use.

        Raises:
            EngineUnavailableError: the runtime is missing, or refuses the model.
            EngineCrashedError: the process died.
        """
        self._ready()

    def set_adapter(self, tensors: Tensors | None, layout: AdapterLayout | None) -> None:
        """Swaps the adapter; see `Engine.set_adapter`. A new process after a crash gets it again."""
        data = b""
        if tensors is not None and layout is not None:
            try:
                data = to_safetensors(tensors, layout)
            except AdapterError as error:
                raise EngineUnavailableError(f"the adapter does not match its own layout: {error}") from error
        self._ready().ask(Kind.ADAPTER, [data], Kind.DONE, limit_bytes=0)
        self._adapter = data

    def generate(self, prompt: Sequence[int], sampling: SamplingSettings) -> Generator[int, None, None]:
        """Yields tokens that continue a prompt; see `Engine.generate`.

        Raises:
            EngineCrashedError: the process died; the tokens before that were good.
        """
        check_prompt(prompt, self._dimensions.vocabulary, self.context_tokens)
        room = min(sampling.max_tokens, self.context_tokens - len(prompt))
        return self._generate(list(prompt), replace(sampling, max_tokens=room))

    def _generate(self, prompt: list[int], sampling: SamplingSettings) -> Generator[int, None, None]:
        process = self._ready()
        process.begin(prompt, sampling)
        try:
            while (token := process.next_token()) is not None:
                if token >= self._dimensions.vocabulary:
                    raise EngineError(f"the engine process sent token {token}, which the model does not have")
                yield token
        finally:
            process.end()

    def interrupt(self) -> None:
        """Ends the running generation from another thread, within `CANCEL_WITHIN_S`.

        Its iterator ends as if the answer were complete. Without a running
        generation nothing happens.
        """
        if self._process is not None:
            self._process.cancel()

    def token_losses(self, examples: Sequence[TokenExample]) -> list[NDArray[np.float32]]:
        """Losses of answer tokens; see `Engine.token_losses`."""
        if not examples:
            return []
        lengths = [example.length - 1 for example in examples]
        lists = pack_lists([example.tokens.tolist() for example in examples])
        marks = np.concatenate([example.answer for example in examples]).tobytes()
        data = self._ready().ask(Kind.LOSSES, [lists, marks], Kind.ARRAY, limit_bytes=4 * sum(lengths))
        losses = _array(data, "<f4", sum(lengths)).astype(np.float32)
        return np.split(losses, np.cumsum(lengths)[:-1])

    def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]) -> Scores:
        """Log-likelihoods of candidates; see `Engine.score`."""
        count = len(prompts) * len(candidates)
        parts = [pack_lists(prompts), pack_lists(candidates)]
        data = self._ready().ask(Kind.SCORE, parts, Kind.ARRAY, limit_bytes=8 * count)
        return _array(data, "<f8", count).astype(np.float64).reshape(len(prompts), len(candidates))

    def close(self) -> None:
        """Ends the process; the next use starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def _ready(self) -> _Process:
        """The running process; a new one where the last is gone or was left in the middle of an answer."""
        if self._process is not None:
            if self._process.alive and not self._process.busy:
                return self._process
            if self._process.generating:
                raise EngineError("the engine still writes another answer; close that iterator first")
            self.close()
        process = _Process(self.kind, self._opening)
        try:
            process.open(self._opening)
            if self._adapter:
                process.ask(Kind.ADAPTER, [self._adapter], Kind.DONE, limit_bytes=0)
        except BaseException:
            process.stop()
            raise
        self._process = process
        return process


class _Process:
    """One life of an engine process and the socket to it."""

    def __init__(self, kind: EngineKind, opening: dict[str, object]) -> None:
        self._kind = kind
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
                [sys.executable, "-P", "-m", "edge_client.engines.isolated_child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Native libraries are talkative; what they say may quote paths and is of use to nobody but developers.
                stderr=None if os.environ.get("NIGHTSHIFT_TRACEBACK") else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=str(opening["package"]),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._socket = ours
        self._channel = Channel(ours)
        self._sending = threading.Lock()
        self._number = 0
        self._cancelled = False
        self.generating = False
        self.busy = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def open(self, opening: dict[str, object]) -> None:
        self._socket.settimeout(_START_WITHIN_S)
        try:
            self.ask(Kind.OPEN, [json.dumps(opening).encode()], Kind.READY, limit_bytes=0)
        except TimeoutError as error:
            raise EngineUnavailableError(
                f"{self._kind.label} did not load the model within {_START_WITHIN_S:g} s; try a smaller model"
            ) from error
        self._socket.settimeout(None)

    def ask(self, kind: Kind, parts: Sequence[bytes], expected: Kind, *, limit_bytes: int) -> bytes:
        """Sends a request and returns the payload of its answer."""
        self.busy = True
        self._send(kind, *parts)
        payload = self._receive({expected: limit_bytes})[1]
        self.busy = False
        return payload

    def begin(self, prompt: Sequence[int], sampling: SamplingSettings) -> None:
        """Starts a generation."""
        settings = json.dumps(asdict(sampling)).encode()
        with self._sending:
            self._number += 1
            self._cancelled, self.busy, self.generating = False, True, True
            header = self._number.to_bytes(4, "little") + len(settings).to_bytes(4, "little")
        self._send(Kind.GENERATE, header, settings, pack_lists([prompt]))

    def next_token(self) -> int | None:
        """The next token; None at the end."""
        try:
            kind, payload = self._receive({Kind.TOKEN: 4, Kind.DONE: 0})
        except EngineCrashedError:
            # Killed because it did not stop in time: that is what was asked for.
            if self._cancelled:
                return None
            raise
        if kind is Kind.DONE:
            self.busy = False
            return None
        return int.from_bytes(payload, "little")

    def end(self) -> None:
        """Leaves a generation: stops it if it still runs and takes its last tokens off the socket."""
        try:
            if self.busy and self.alive:
                self.cancel()
                while self.next_token() is not None:
                    pass
        finally:
            self.generating = False

    def cancel(self) -> None:
        """Asks the running generation to stop, and kills the process if it does not; any thread."""
        with self._sending:
            if not self.generating or self._cancelled:
                return
            self._cancelled = True
            number = self._number
            try:
                self._channel.send(Kind.CANCEL, number.to_bytes(4, "little"))
            except ChannelClosedError:
                return
        timer = threading.Timer(CANCEL_WITHIN_S, self._kill_if_still, [number])
        timer.daemon = True
        timer.start()

    def _kill_if_still(self, number: int) -> None:
        # Native code looks at nothing while it reads a long prompt.
        with self._sending:
            if self.busy and self.generating and self._number == number:
                self._process.kill()

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        self._channel.close()

    def _send(self, kind: Kind, *parts: bytes) -> None:
        try:
            with self._sending:
                self._channel.send(kind, *parts)
        except ChannelClosedError as error:
            raise self._crash() from error

    def _receive(self, expected: dict[Kind, int]) -> tuple[Kind, bytes]:
        try:
            kind, payload = self._channel.receive(max(SMALL_BYTES, *expected.values()))
        except ChannelClosedError as error:
            raise self._crash() from error
        except EngineError:
            # What follows on the socket has no meaning any more.
            self._process.kill()
            raise
        if kind is Kind.FAILED:
            self.busy = False
            raise _error(payload)
        if kind not in expected or len(payload) > expected[kind]:
            self._process.kill()
            raise EngineError(f"the engine process answered with {kind.name} of {len(payload)} bytes out of turn")
        return kind, payload

    def _crash(self) -> EngineCrashedError:
        try:
            status = self._process.wait(_EXIT_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return EngineCrashedError(describe_exit(self._kind, status))


def describe_exit(kind: EngineKind, status: int) -> str:
    """A sentence about the end of an engine process.

    Args:
        kind: the runtime that ran in it.
        status: exit status; negative for a signal.
    """
    if status >= 0:
        return f"the {kind.label} process ended with status {status}; the next request starts it again"
    name = signal.Signals(-status).name
    text = f"the {kind.label} process was stopped by {name}"
    if -status == signal.SIGILL:
        other = EngineKind.ONNX if kind is EngineKind.LLAMA else EngineKind.LLAMA
        return (
            f"{text}: its library was built for another processor ({lacking_sentence()}). Use --engine {other.value}, "
            "or build the library on this machine (docs/local-api.md)"
        )
    if -status == signal.SIGKILL:
        return f"{text}, most likely by the kernel because memory ran out; use a smaller model or a shorter context"
    return f"{text}: its native library crashed; the next request starts it again"


def _error(payload: bytes) -> protocol_errors.NightshiftError:
    """The error that the engine process names; anything unknown is an EngineError."""
    try:
        record = json.loads(payload)
        kind, message = str(record["kind"]), str(record["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return EngineError("the engine process failed and could not say why")
    if kind == "MemoryError":
        return protocol_errors.ResourceError(f"{message}; use a smaller model or a shorter context")
    known = getattr(errors, kind, None) or getattr(protocol_errors, kind, None)
    if isinstance(known, type) and issubclass(known, protocol_errors.NightshiftError):
        return known(message)
    return EngineError(message)


def _array(data: bytes, dtype: str, count: int) -> NDArray[np.float64] | NDArray[np.float32]:
    array = np.frombuffer(data, dtype=dtype)
    if len(array) != count:
        raise EngineError(f"the engine process answered with {len(array)} numbers, expected {count}")
    return array
