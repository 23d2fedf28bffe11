"""Training in a process of its own: a crash or a full memory there is a report here.

The child keeps its limits itself where the kernel helps (RLIMIT_DATA); the
parent also watches its resident memory, since address space that is reserved
but not used says little about memory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from edge_client.engines.processor import lacking_sentence
from edge_client.training import errors, exchange
from edge_client.training.allocator import allocator_environment
from edge_client.training.exchange import ChildRequest, ChildResult
from edge_client.training.trainer import Progress, TrainingOutcome
from nightshift.host.files import make_private_directory, write_atomic
from nightshift.protocol import errors as protocol_errors
from nightshift.protocol.adapters.formats import from_safetensors, layout_of

STOP_WITHIN_S = 5.0
STDERR = "stderr"
_POLL_S = 0.05


def train_in_child(
    request: ChildRequest,
    directory: Path,
    *,
    should_stop: Callable[[], str | None] = lambda: None,
    on_step: Callable[[Progress], None] | None = None,
) -> ChildResult:
    """Runs a training process to its end.

    Args:
        request: what to train.
        directory: private directory for its files; with the same request a
            run that was stopped or died continues from its checkpoint.
        should_stop: polled all the time; a reason makes the child put its
            state away and end within `STOP_WITHIN_S`.
        on_step: told about finished steps.

    Returns:
        The result; `outcome.stopped` says why it ended early, and then
        `steps_done` may be 0 and the adapter the one it started from.

    Raises:
        ChildCrashedError: the process died.
        ChildOutOfMemoryError: it met its memory ceiling.
        ChildTimeoutError: it did not stop when told to.
        NightshiftError: whatever `train` and `prepare` raise, raised again here.
    """
    make_private_directory(directory)
    exchange.write_request(directory, request)
    with os.fdopen(os.open(directory / STDERR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stderr:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-P", "-m", "edge_client.training.child", str(directory.absolute())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=_environment(request),
            cwd=directory,
            start_new_session=True,
        )
    watch = _Watch(process, request, directory, on_step)
    try:
        watch.until_exit(should_stop)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return _conclude(process.returncode, request, directory, watch)


def _environment(request: ChildRequest) -> dict[str, str]:
    """Environment of the training process.

    Its numpy adds vectors, which no second BLAS thread makes faster, yet OpenBLAS keeps its threads
    spinning between calls: measured, they took as much of the processor as the training itself.
    """
    environment = allocator_environment(os.environ, jemalloc=request.jemalloc, trim=request.trim_malloc)
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    return environment


class _Watch:
    """The parent's side of a running child."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        request: ChildRequest,
        directory: Path,
        on_step: Callable[[Progress], None] | None,
    ) -> None:
        self._process = process
        self._request = request
        self._directory = directory
        self._on_step = on_step
        self._progress_offset = 0
        self._stop_deadline: float | None = None
        self.stop_reason: str | None = None
        self.over_memory_bytes = 0

    def until_exit(self, should_stop: Callable[[], str | None]) -> None:
        """Waits for the child, enforcing its limits.

        Raises:
            ChildTimeoutError: it did not stop in time and was killed.
        """
        started = time.monotonic()
        while self._process.poll() is None:
            self._report_progress()
            used = _private_memory_bytes(self._process.pid)
            if 0 < self._request.memory_limit_bytes < used:
                self.over_memory_bytes = used
                self._process.kill()
                self._process.wait()
                return
            late = 0 < self._request.time_limit_s < time.monotonic() - started
            self._ask_to_stop("time limit" if late else should_stop())
            if self._stop_deadline is not None and time.monotonic() > self._stop_deadline:
                self._process.kill()
                self._process.wait()
                raise errors.ChildTimeoutError(
                    f"the training process did not stop within {STOP_WITHIN_S:g} s "
                    f"({self.stop_reason}) and was killed; its last checkpoint stays"
                )
            try:
                self._process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
        self._report_progress()

    def _ask_to_stop(self, reason: str | None) -> None:
        if reason is None or self.stop_reason is not None:
            return
        self.stop_reason = reason
        self._stop_deadline = time.monotonic() + STOP_WITHIN_S
        write_atomic(self._directory / exchange.STOP, reason.encode())
        # Ends it at once while it is still importing libraries; later its handler reads the reason.
        self._process.terminate()

    def _report_progress(self) -> None:
        try:
            with (self._directory / exchange.PROGRESS).open("rb") as log:
                log.seek(self._progress_offset)
                data = log.read()
        except FileNotFoundError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        self._progress_offset += len(complete)
        for line in complete.splitlines():
            if self._on_step is not None:
                self._on_step(Progress(*json.loads(line)))


def _conclude(status: int, request: ChildRequest, directory: Path, watch: _Watch) -> ChildResult:
    """Turns an exit status and the files of a child into a result or an error."""
    result = exchange.read_result(directory)
    limit = request.memory_limit_bytes
    if isinstance(result, ChildResult):
        return result
    if watch.over_memory_bytes:
        raise _out_of_memory(f"used {watch.over_memory_bytes >> 20} MiB", limit)
    if isinstance(result, tuple):
        kind, message = result
        if kind == "MemoryError":
            raise _out_of_memory(message, limit)
        raise _find_error(kind)(message)
    if watch.stop_reason is not None and status in (exchange.EXIT_STOPPED, -signal.SIGTERM):
        layout = layout_of(request.adapter)
        adapter = from_safetensors(request.adapter, layout)
        outcome = TrainingOutcome(adapter, 0, float("nan"), float("nan"), 0, watch.stop_reason)
        return ChildResult(outcome, 0, 0, {}, {})
    if status < 0 and limit and _mentions_allocation(directory / STDERR):
        raise _out_of_memory("an allocation failed", limit)
    raise errors.ChildCrashedError(_describe_exit(status))


def _out_of_memory(what: str, limit_bytes: int) -> errors.ChildOutOfMemoryError:
    ceiling = f"its ceiling is {limit_bytes >> 20} MiB" if limit_bytes else "the machine has no more"
    return errors.ChildOutOfMemoryError(
        f"the training process ran out of memory ({what}; {ceiling}); "
        "allow more, or use recomputation, shorter examples or a smaller micro-batch"
    )


def _find_error(name: str) -> type[protocol_errors.NightshiftError]:
    """Finds the class of an error that the child named; unknown ones are crashes."""
    pending = [protocol_errors.NightshiftError]
    while pending:
        known = pending.pop()
        if known.__name__ == name:
            return known
        pending.extend(known.__subclasses__())
    return errors.ChildCrashedError


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"the training process ended with status {status} and no result; run again"
    name = signal.Signals(-status).name
    cause = {
        signal.SIGKILL: "most likely the kernel, because memory ran out",
        signal.SIGILL: f"onnxruntime is built for another processor: {lacking_sentence()}; install one for this one",
    }.get(signal.Signals(-status), "the native library crashed")
    return f"the training process was killed by {name} ({cause}); its last checkpoint stays"


def _mentions_allocation(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        return b"bad_alloc" in file.read()


def _private_memory_bytes(pid: int) -> int:
    """Resident memory that is the process's own; mapped weights can be dropped at any time."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
