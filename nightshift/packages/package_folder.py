"""A package's folder while it is made: it appears at once and whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nightshift.packages.package import file_sha256
from nightshift.protocol.errors import UsageError
from nightshift.protocol.manifest import FileRole, PackageFile

FILE_NAMES: Final = {
    FileRole.GGUF: "model.gguf",
    FileRole.WEIGHTS: "weights.bin",
    FileRole.DECODE: "decode.onnx",
    FileRole.DECODE_ADAPTER: "decode-adapter.onnx",
    FileRole.EVALUATE: "evaluate.onnx",
    FileRole.TRAIN: "train.onnx",
    FileRole.TRAIN_RECOMPUTE: "train-recompute.onnx",
    FileRole.TOKENIZER: "tokenizer.json",
}


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """Give a hidden folder beside `destination` to write into; it takes that name when the block ends well.

    Raises:
        UsageError: the destination is taken.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UsageError(f"{destination}: is there already; name a new folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        workplace.chmod(0o755)
        yield workplace
        if destination.exists():
            destination.rmdir()
        workplace.rename(destination)
    except BaseException:
        shutil.rmtree(workplace, ignore_errors=True)
        raise


def describe_files(directory: Path, names: Mapping[FileRole, str]) -> tuple[PackageFile, ...]:
    """Size and hash of each file, for the manifest."""
    return tuple(
        PackageFile(name, role, (directory / name).stat().st_size, file_sha256(directory / name))
        for role, name in names.items()
    )
