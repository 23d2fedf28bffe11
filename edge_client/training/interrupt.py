"""Ending a training step that is already running."""

from __future__ import annotations


class Interrupt:
    """A request to stop, made from another thread or a signal handler.

    A step of a large model on a small board takes longer than the grace
    period; ONNX Runtime then leaves the graph at the next operator. The step
    is lost, the state before it is not.
    """

    def __init__(self) -> None:
        import onnxruntime

        self.run_options = onnxruntime.RunOptions()
        self.run_options.log_severity_level = 4  # a requested stop is no error worth a line on stderr
        self.reason: str | None = None

    def request(self, reason: str) -> None:
        """Asks the running step to end; the first reason stays."""
        if self.reason is None:
            self.reason = reason
        self.run_options.terminate = True
