"""Small honest files for the fuzz targets to begin with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nightshift.packages.random_model import SMALL, write_random_model
from nightshift.protocol.manifest import (
    FileRole,
    HubSource,
    Licence,
    Manifest,
    PackageFile,
    Quantisation,
    Scheme,
    TokenizerRecord,
)
from nightshift.protocol.openness import Component, ComponentRecord, Openness, OpennessRecord

_HASH = "ab" * 32
_DIMENSIONS = dataclasses.replace(
    SMALL, layers=1, hidden=16, ffn=16, heads=1, kv_heads=1, head_dim=16, vocabulary=354, context=64
)


def gguf_file(path: Path) -> bytes:
    """A whole model of a few tens of kilobytes; written to `path` on the way."""
    write_random_model(path, _DIMENSIONS, seed=1)
    return path.read_bytes()


def manifest() -> bytes:
    """A manifest with every field that there is."""
    return Manifest(
        name="tiny",
        dimensions=_DIMENSIONS,
        quantisation=Quantisation(Scheme.Q8_0, _HASH),
        source=HubSource("organisation/tiny", "ab" * 20, "tiny.gguf"),
        tokenizer=TokenizerRecord(_HASH, bos=1, eos=None, add_bos=True),
        chat_template="{{ messages }}",
        licence=Licence("MIT", ("Keep the notice.",)),
        openness=OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, "MIT")}),
        lora_targets=("q_proj",),
        files=tuple(PackageFile(f"{role}.bin", role, 10, _HASH) for role in FileRole),
    ).to_bytes()


def prompt_file() -> bytes:
    """Two rows of JSON, the second with an escape."""
    return b'{"prompt": "wake me", "completion": "alarm"}\n{"prompt": "a\\u00e9", "completion": "b"}\n'


def csv_file() -> bytes:
    """A header and two rows, the second with quotes and a line break."""
    return b'prompt,completion\nwake me,alarm\n"say ""hi""","two\nlines"\n'
