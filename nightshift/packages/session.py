"""Opening a package's graph in ONNX Runtime with the options that keep it small.

Measured on a 135M-parameter model (docs/benchmarks/training.md): `enable_mem_reuse` brings nothing and
takes long to plan; the arena and the memory pattern hold on to the peak; spinning threads burn a core that
the device wants for itself. Only decode's threads spin: a token is some 400 short operators, and waking a
thread for each costs a quarter of the time (docs/benchmarks/inference.md).
`session.disable_quant_qdq` stays at its default: setting it folds quantised weights to float32.

The graphs that see whole sequences run as they are written, node by node: their order decides what is alive at
the same time, and the optimiser, which would find nothing to fuse, took two thirds of the time to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nightshift.packages.package import ModelPackage
from nightshift.protocol.errors import UsageError
from nightshift.protocol.manifest import FileRole

if TYPE_CHECKING:
    import onnxruntime

DECODE_ROLES: Final = (FileRole.DECODE, FileRole.DECODE_ADAPTER)
GRAPH_ROLES: Final = (*DECODE_ROLES, FileRole.EVALUATE, FileRole.TRAIN, FileRole.TRAIN_RECOMPUTE)


def session_options(*, threads: int, spinning: bool = False, as_written: bool = False) -> onnxruntime.SessionOptions:
    """Options for any graph of a package.

    Args:
        threads: Threads of one operator; 0 lets ONNX Runtime choose (one per physical core).
        spinning: Whether threads wait for the next operator without sleeping.
        as_written: Run the nodes in the order of the file, none changed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_mem_reuse = False
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Of the nodes that are ready the one with the highest priority, and of equals the first, runs next.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    return options


def open_session(package: ModelPackage, role: FileRole | str, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """Load one graph of a package on the CPU; the weights are mapped from weights.bin.

    Raises:
        UsageError: The role is not a graph.
    """
    import onnxruntime

    if role not in GRAPH_ROLES:
        raise UsageError(f"{role} is no graph; expected one of {', '.join(GRAPH_ROLES)}")
    return onnxruntime.InferenceSession(
        str(package.path(role)),
        session_options(threads=threads, spinning=role in DECODE_ROLES, as_written=role not in DECODE_ROLES),
        providers=["CPUExecutionProvider"],
    )
