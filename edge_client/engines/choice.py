"""Which runtime answers on this device.

`auto` takes llama.cpp where it is installed and works, otherwise ONNX Runtime.
Whether it works is not guessed from names of processor features: the engine
process loads the model and writes one token, and if that ends with an illegal
instruction, the other runtime is taken and the reason is told.
"""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass

from edge_client.engines.engine import EngineKind
from edge_client.engines.errors import EngineError, EngineUnavailableError
from edge_client.engines.isolated import IsolatedEngine
from edge_client.engines.sampling import SamplingSettings
from nightshift.packages.package import ModelPackage
from nightshift.protocol.errors import ResourceError
from nightshift.protocol.manifest import FileRole

_MODULES = {EngineKind.LLAMA: "llama_cpp", EngineKind.ONNX: "onnxruntime"}
AUTOMATIC_ORDER = (EngineKind.LLAMA, EngineKind.ONNX)
_FILES = {EngineKind.LLAMA: FileRole.GGUF, EngineKind.ONNX: FileRole.DECODE}
_INSTALL = {
    EngineKind.LLAMA: "llama.cpp: pip install 'nightshift[llama]'",
    EngineKind.ONNX: "ONNX Runtime: pip install onnxruntime",
}


@dataclass(frozen=True, slots=True)
class ChosenEngine:
    """An engine that has written a token on this device.

    Attributes:
        engine: started.
        notes: why runtimes that would have come first are not used, one sentence each.
    """

    engine: IsolatedEngine
    notes: tuple[str, ...]


def is_installed(kind: EngineKind) -> bool:
    """Tells whether a runtime can be imported, without importing it."""
    try:
        return importlib.util.find_spec(_MODULES[kind]) is not None
    except ValueError:  # an import that failed half-way leaves a module without a spec
        return False


def runs_in(package: ModelPackage, kind: EngineKind) -> bool:
    """Tells whether a package holds what a runtime needs."""
    return any(file.role is _FILES[kind] for file in package.manifest.files)


def open_engine(
    package: ModelPackage,
    wanted: EngineKind | None = None,
    *,
    preferred: EngineKind | None = None,
    threads: int = 0,
    context_tokens: int = 0,
) -> ChosenEngine:
    """Opens the engine that was asked for, or the best that works here.

    Args:
        package: the model.
        wanted: this one or none; None chooses.
        preferred: tried first when choosing; the device profile may say so.
        threads: of the runtime; 0 takes every core.
        context_tokens: longest sequence; 0 takes the model's own.

    Raises:
        EngineUnavailableError: the one that was asked for, or every one, is missing or fails; says how to mend it.
    """
    order = (wanted,) if wanted is not None else _order(preferred)
    problems: list[str] = []
    for kind in order:
        if not runs_in(package, kind):
            problems.append(f"{package.manifest.name} is not made for {kind.label}: {package.manifest.uses.sentence}")
            continue
        if not is_installed(kind):
            problems.append(f"{kind.label} is not installed")
            continue
        engine = IsolatedEngine(package, kind, threads=threads, context_tokens=context_tokens)
        try:
            check_works(engine)
        except (EngineUnavailableError, EngineError, ResourceError) as error:
            engine.close()
            problems.append(str(error))
            continue
        return ChosenEngine(engine, tuple(problems))
    missing = [kind for kind in order if runs_in(package, kind) and not is_installed(kind)]
    told = "; ".join(problems)
    if wanted is None:
        told = f"no inference engine {'works' if len(missing) < len(order) else 'is installed'} here: {told}"
    remedy = f". Install {', or '.join(_INSTALL[kind] for kind in missing)}" if missing else ""
    raise EngineUnavailableError(told + remedy)


def check_works(engine: IsolatedEngine) -> None:
    """Loads the model and writes one token.

    Raises:
        EngineUnavailableError: the runtime is missing or refuses the model.
        EngineError: it fails or dies.
        ResourceError: not enough memory.
    """
    with contextlib.closing(engine.generate([0], SamplingSettings(max_tokens=1))) as tokens:
        next(tokens, None)


def _order(preferred: EngineKind | None) -> tuple[EngineKind, ...]:
    return AUTOMATIC_ORDER if preferred is None else tuple(sorted(AUTOMATIC_ORDER, key=lambda kind: kind != preferred))
