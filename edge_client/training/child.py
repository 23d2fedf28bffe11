"""The training process: `python -m edge_client.training.child DIRECTORY`.

The main thread only waits: for the work to end, for a reason to stop (SIGTERM,
the stop file, or the parent being gone), and then for the worker to put its
state away. The work runs in a thread, because a signal handler of Python
does not run while the main thread is inside ONNX Runtime.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from edge_client.data.prepare import PreparedData, prepare
from edge_client.data.tokens import TokenExample
from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.training import exchange
from edge_client.training.allocator import allocator_in_use
from edge_client.training.errors import TooLittleTextError
from edge_client.training.evaluate import AnswerLoss, answer_loss
from edge_client.training.exchange import ChildRequest, ChildResult
from edge_client.training.interrupt import Interrupt
from edge_client.training.trainer import Progress, TrainingOutcome, train
from nightshift.host.wording import number_of
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import AdapterLayout, Tensors, TrainedSlots
from nightshift.protocol.adapters.formats import from_safetensors, layout_of, to_safetensors
from nightshift.protocol.errors import NightshiftError

_POLL_S = 0.1
_GRACE_S = 4.0
_ORPHANED = "the agent is gone"
# Address space that is reserved but not used: thread stacks, allocator extents.
_RESERVED_BYTES = 256 << 20


def main(directory: Path) -> int:
    """Does what the request in a directory says; returns the exit status."""
    os.umask(0o077)
    interrupt = Interrupt()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        interrupt.request(_stop_reason(directory) or "asked to stop")

    signal.signal(signal.SIGTERM, on_signal)
    parent = os.getppid()
    worker = threading.Thread(target=_work, args=(directory, interrupt), daemon=True)
    worker.start()
    deadline: float | None = None
    while worker.is_alive():
        worker.join(_POLL_S)
        _look_for_reasons(directory, interrupt, parent)
        if interrupt.reason is not None:
            deadline = deadline or time.monotonic() + _GRACE_S
            if time.monotonic() > deadline:
                # Still loading: nothing is lost that an earlier checkpoint does not hold.
                os._exit(exchange.EXIT_STOPPED)
    return 0


def _look_for_reasons(directory: Path, interrupt: Interrupt, parent: int) -> None:
    reason = _stop_reason(directory)
    if reason is not None:
        interrupt.request(reason)
    elif os.getppid() != parent:
        interrupt.request(_ORPHANED)


def _stop_reason(directory: Path) -> str | None:
    try:
        text = (directory / exchange.STOP).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    return text[:200] or "asked to stop"


def _work(directory: Path, interrupt: Interrupt) -> None:
    """Trains and reports; every failure becomes a result that the parent can read."""
    try:
        request = exchange.read_request(directory)
        if request.memory_limit_bytes:
            limit = request.memory_limit_bytes + _RESERVED_BYTES
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        result, layout = _train(directory, request, interrupt)
        if interrupt.reason == _ORPHANED:
            # The next run may be at work in this directory already; the checkpoint is all that it wants.
            return
        exchange.write_result(directory, result, to_safetensors(result.outcome.adapter, layout))
    except NightshiftError as error:
        exchange.write_error(directory, type(error).__name__, str(error))
    except MemoryError:
        exchange.write_error(directory, "MemoryError", "an allocation failed")
    except Exception as error:  # noqa: BLE001 - the last line of the process: whatever it is must be reported
        # The traceback names files and lines, not data; the message of a foreign exception might quote data.
        traceback.print_tb(error.__traceback__)
        exchange.write_error(directory, "Exception", f"internal error {type(error).__name__}")


def _train(directory: Path, request: ChildRequest, interrupt: Interrupt) -> tuple[ChildResult, AdapterLayout]:
    """Trains, unless it is only to measure, and measures what came out and what the request names."""
    package = ModelPackage.open(request.package_directory, verify=False)
    layout = layout_of(request.adapter)
    parent = from_safetensors(request.adapter, layout)
    data = prepare(
        package,
        request.sources,
        max_tokens=request.settings.max_tokens,
        held_out_fraction=request.held_out_fraction,
        max_examples=request.max_examples,
    )
    adapters: dict[str, Tensors] = {}
    if request.measure_only:
        outcome = TrainingOutcome(dict(parent), 0, math.nan, math.nan, 0, None)
    else:
        _require_enough(request, data)
        slots = TrainedSlots(layout, request.side, request.trained_rank or layout.rank)
        outcome = _steps(
            directory,
            request,
            package=package,
            parent=parent,
            slots=slots,
            examples=data.train,
            interrupt=interrupt,
        )
        adapters |= {"parent": parent, "trained": outcome.adapter}
    losses: dict[str, AnswerLoss] = {}
    if outcome.stopped is None and data.held_out:
        layouts = dict.fromkeys(adapters, layout)
        for name, file in request.compare.items():
            layouts[name] = layout_of(file)
            adapters[name] = from_safetensors(file, layouts[name])
        with OnnxEngine(package, request.runtime) as engine:
            for name, tensors in adapters.items():
                engine.set_adapter(tensors, layouts[name])
                losses[name] = answer_loss(engine, data.held_out)
    result = ChildResult(outcome, len(data.train), len(data.held_out), data.skipped, losses, allocator_in_use())
    return result, layout


def _require_enough(request: ChildRequest, data: PreparedData) -> None:
    """Before the first step: a night of training would come to nothing.

    Raises:
        TooLittleTextError: with what there is and what is needed.
    """
    examples, held_out = len(data.train), len(data.held_out)
    if examples < request.fewest_examples or held_out < request.fewest_held_out:
        raise TooLittleTextError(
            f"this device has {number_of(examples, 'example')} to train on and {held_out} held out; "
            f"at least {request.fewest_examples} and {request.fewest_held_out} are needed. "
            f"Which are held out is decided by what they say, and about {request.held_out_fraction:.0%} are; "
            "add more text with: edge-client data add"
        )


def _steps(
    directory: Path,
    request: ChildRequest,
    *,
    package: ModelPackage,
    parent: Tensors,
    slots: TrainedSlots,
    examples: Sequence[TokenExample],
    interrupt: Interrupt,
) -> TrainingOutcome:
    with (directory / exchange.PROGRESS).open("a", encoding="utf-8", buffering=1) as log:

        def on_step(progress: Progress) -> None:
            log.write(json.dumps([progress.step, progress.steps, progress.loss, progress.tokens]) + "\n")

        return train(
            package,
            parent,
            slots,
            examples,
            request.settings,
            checkpoint_directory=directory,
            on_step=on_step,
            runtime=request.runtime,
            interrupt=interrupt,
        )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
