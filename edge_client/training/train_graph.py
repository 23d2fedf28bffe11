"""The train graph of a package: loss and gradient of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_client.data.batches import Batch, collate
from edge_client.data.tokens import TokenExample
from edge_client.engines.sessions import Feeds, RuntimeSettings, adapter_feeds, is_allocation_failure, open_session
from edge_client.training.adamw import Vector
from edge_client.training.errors import TrainingError
from edge_client.training.interrupt import Interrupt
from nightshift.packages.package import ModelPackage
from nightshift.protocol.adapters import Tensors, TrainedSlots
from nightshift.protocol.manifest import FileRole


class TrainGraph:
    """Loss and gradient of some slots of one side of an adapter.

    The forward pass is that of the whole adapter, whatever is trained of it.

    Args:
        package: the model.
        slots: which gradients are wanted.
        adapter: tensors that every call reads as they are then.
        runtime: threads and memory.
        interrupt: ends a call early.
    """

    def __init__(
        self,
        package: ModelPackage,
        *,
        slots: TrainedSlots,
        adapter: Tensors,
        runtime: RuntimeSettings,
        interrupt: Interrupt,
    ) -> None:
        role = FileRole.TRAIN_RECOMPUTE if runtime.recompute else FileRole.TRAIN
        self._session = open_session(package, role, runtime)
        self._feeds = adapter_feeds(package.manifest, slots.layout, adapter)
        self._slots = slots
        self._names = slots.layout.trained_names(slots.side)
        self.interrupt = interrupt

    def gradient(self, examples: Sequence[TokenExample], micro_batch_size: int) -> tuple[float, Vector] | None:
        """Mean loss over the answer tokens of a batch, and its gradient, float32 [slots.length].

        Micro-batches are weighted by their number of answer tokens, which makes
        the result that of the whole batch.

        Returns:
            None if the interrupt was requested meanwhile.

        Raises:
            TrainingError: the runtime failed.
            MemoryError: memory ran out.
        """
        total_loss, total_weight = 0.0, 0.0
        total = np.zeros(self._slots.length, dtype=np.float32)
        for batch in _micro_batches(examples, micro_batch_size):
            outputs = self._run(batch)
            if outputs is None:
                return None
            weight = batch.answer_tokens
            total_loss += float(outputs[0]) * weight
            parts = self._slots.of(dict(zip(self._names, outputs[1:], strict=True)))
            total += np.float32(weight) * np.concatenate([part.ravel() for part in parts.values()])
            total_weight += weight
        total_weight = max(total_weight, 1.0)
        total /= np.float32(total_weight)
        return total_loss / total_weight, total

    def _run(self, batch: Batch) -> list[NDArray[np.float32]] | None:
        feeds: Feeds = {
            **self._feeds,
            "input_ids": batch.input_ids,
            "labels": batch.labels,
            "weights": batch.weights,
        }
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(
                ["loss", *(f"grad.{name}" for name in self._names)], feeds, self.interrupt.run_options
            )
        except Exception as error:  # the binding raises classes of its own without a common base
            if self.interrupt.reason is not None:
                return None
            if is_allocation_failure(error):
                raise MemoryError(f"the train graph could not allocate memory: {error}") from error
            raise TrainingError(f"ONNX Runtime failed in a training step: {error}") from error
        return outputs


def _micro_batches(examples: Sequence[TokenExample], size: int) -> Iterator[Batch]:
    for start in range(0, len(examples), size):
        yield collate(examples[start : start + size])
