"""From what an operator names to a package: a package itself, a GGUF file, a Hugging Face folder, a hub name.

The package is made where the operator is, which may be another machine than the coordinator's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from nightshift.host.files import require_free_space
from nightshift.packages.hub import HubReference
from nightshift.packages.hub_import import import_from_hub
from nightshift.packages.huggingface_config import FAMILY_OF, model_type
from nightshift.packages.importing import Say, Wishes, import_path, room_needed
from nightshift.packages.package import MANIFEST_NAME, ModelPackage
from nightshift.protocol.errors import UsageError


def publish(
    source: Path | HubReference,
    wishes: Wishes,
    *,
    workspace: Path,
    store: Callable[[Path], bytes],
    say: Say,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> bytes:
    """Make a package, if it is not one already, and store it.

    Args:
        source: a path, or a model hub's name.
        wishes: how the package should be made.
        workspace: directory for what is made on the way, and for what a hub gave.
        store: takes the package's folder and returns its manifest.
        say: told in a few words what is being done.
        progress: told how far a download is.

    Returns:
        The manifest's bytes, for `catalogue.add_model`.

    Raises:
        UsageError: there is nothing at the path.
        HashMismatchError, MalformedError, IncompatibleError: no package can be made of it; says why.
        NotFoundError, OverloadedError, UnreachableError: the hub does not give it; says what to do.
        ResourceError: not enough disk.
    """
    if isinstance(source, Path):
        if not source.exists():
            raise UsageError(f"{source} does not exist, and is no name of a model hub (organisation/name)")
        if (source / MANIFEST_NAME).is_file():
            return store(source)
    with tempfile.TemporaryDirectory(dir=workspace, prefix="package-") as folder:
        package = Path(folder) / "package"
        if isinstance(source, Path):
            require_free_space(workspace, room_needed(_size_bytes(source)))
            _make(source, package, wishes, say=say)
        else:
            import_from_hub(
                source,
                workspace / "hub",
                package,
                wishes,
                say=say,
                progress=progress,
                require_room=lambda size_bytes: require_free_space(workspace, size_bytes),
                make=_make,
            )
        return store(package)


def _make(source: Path, destination: Path, wishes: Wishes, *, say: Say) -> ModelPackage:
    """Like `import_path`; an architecture that it does not know is exported for inference only."""
    if source.is_dir() and model_type(source) not in FAMILY_OF:
        from coordinator.models.exported import export_folder

        return export_folder(source, destination, wishes, say=say)
    return import_path(source, destination, wishes, say=say)


def _size_bytes(source: Path) -> int:
    """Of a file, or of the weights of a folder."""
    paths = source.glob("*.safetensors") if source.is_dir() else [source]
    return sum(path.stat().st_size for path in paths if path.is_file())
