"""The reader against files of the gguf package, and against files that lie."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightshift.packages.gguf_file import GgufFile, TensorType, ValueType
from nightshift.packages.gguf_types import FOREIGN_BLOCKS
from nightshift.packages.gguf_writer import GgufWriter, TensorPlan, array_entry, entry
from nightshift.packages.recognition import recognise
from nightshift.packages.vocabulary import read_vocabulary, tokenizer_json
from nightshift.protocol.errors import IncompatibleError, MalformedError, NightshiftError


def test_metadata_and_tensors_equal_what_the_gguf_package_reads(stories_source: Path) -> None:
    reader = gguf.GGUFReader(stories_source)
    with GgufFile.open(stories_source) as file:
        theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        assert {key: file.value(key) for key in file.keys()} == theirs  # noqa: SIM118 - not a dict
        assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
        for tensor in reader.tensors:
            assert file.tensors[tensor.name].shape == tuple(int(size) for size in reversed(tensor.shape))
            np.testing.assert_array_equal(file.tensor_bytes(tensor.name), tensor.data.view(np.uint8).reshape(-1))


def test_what_the_writer_writes_the_gguf_package_reads(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    values = np.arange(96, dtype=np.float32).reshape(3, 32)
    quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    entries = [
        entry("general.architecture", "llama"),
        entry("a.count", 7),
        entry("a.rate", 0.5),
        entry("a.flag", value=True),
        array_entry("a.words", ValueType.STRING, ["é", ""]),
        array_entry("a.numbers", ValueType.INT32, [-1, 2]),
    ]
    plans = [TensorPlan("q", (3, 32), TensorType.Q8_0), TensorPlan("f", (5,), TensorType.F32)]
    with GgufWriter(path, entries, plans) as writer:
        writer.write("q", quantised)
        writer.write("f", np.ones(5, np.float32).view(np.uint8))
    reader = gguf.GGUFReader(path)
    found = {key: field.contents() for key, field in reader.fields.items() if key.startswith("a.")}
    assert found == {"a.count": 7, "a.rate": 0.5, "a.flag": True, "a.words": ["é", ""], "a.numbers": [-1, 2]}
    np.testing.assert_array_equal(reader.tensors[0].data, quantised)
    np.testing.assert_array_equal(reader.tensors[1].data, np.ones(5, np.float32))


def test_the_writer_refuses_a_tensor_that_was_not_planned(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="planned is q"),
        GgufWriter(tmp_path / "x.gguf", [], [TensorPlan("q", (1,), TensorType.F32)]) as writer,
    ):
        writer.write("other", np.zeros(4, np.uint8))


def test_a_file_cut_anywhere_in_its_header_or_data_is_refused(stories_source: Path, tmp_path: Path) -> None:
    whole = stories_source.read_bytes()
    path = tmp_path / "cut.gguf"
    cuts = [1, 3, 20, 23, 24, 40, 200, 1000, 5000, 9000, 12000, 14000, len(whole) // 2, len(whole) - 4096]
    for size in cuts:
        path.write_bytes(whole[:size])
        with pytest.raises(MalformedError, match=r"cut\.gguf.*(truncated|header|not a GGUF)"):
            GgufFile.open(path)
    path.write_bytes(b"")
    with pytest.raises(MalformedError, match="empty file"):
        GgufFile.open(path)


def header(*, tensors: int = 0, keys: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, keys)


def text(value: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if size is None else size) + value


def tensor(name: bytes = b"t", axes: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, kind, offset)


def test_arrays_of_bytes_are_read(tmp_path: Path) -> None:
    """UINT8 is type 0, which is easily taken for "no type"."""
    path = tmp_path / "bytes.gguf"
    array, single = struct.pack("<IIQ", 9, 0, 3) + b"\x00\x07\xff", struct.pack("<I", 0) + b"\x05"
    path.write_bytes(
        header(tensors=1, keys=2) + text(b"array") + array + text(b"single") + single + tensor() + bytes(256)
    )
    with GgufFile.open(path) as file:
        assert file.numbers("array") == [0, 7, 255]
        assert file.integer("single") == 5


HUGE = (1 << 64) - 1

LIES = {
    "magic": (header(magic=b"GGML") + bytes(64), "not a GGUF file"),
    "tensor count": (header(tensors=HUGE) + bytes(64), "claims"),
    "key count": (header(keys=1 << 40) + bytes(64), "claims"),
    "key length": (header(keys=1) + text(b"k", HUGE) + bytes(64), "name of"),
    "text length": (header(keys=1) + text(b"k") + struct.pack("<I", 8) + text(b"v", 1 << 50), "truncated"),
    "text count": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 60), "claims"),
    "texts beyond the end": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 20), "truncated"),
    "number count": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 10, HUGE), "claims"),
    "numbers beyond the end": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 10, 1 << 20), "truncated"),
    "value type": (header(keys=1) + text(b"k") + struct.pack("<IQ", 99, 0), "unknown value type"),
    "nested": (header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1), "array of arrays"),
    "twice": (header(keys=2) + 2 * (text(b"k") + struct.pack("<IB", 0, 1)), "occurs twice"),
    "not text": (header(keys=1) + text(b"\xff\xfe") + bytes(16), "not UTF-8"),
    "alignment": (header(keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 33), "power of two"),
    "no alignment": (header(keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 0), "power of two"),
    "dimensions": (header(tensors=1) + tensor(axes=(HUGE, HUGE)) + bytes(64), "claims the shape"),
    "no dimension": (header(tensors=1) + tensor(axes=()) + bytes(64), "has 0 dimensions"),
    "five dimensions": (header(tensors=1) + tensor(axes=(1,) * 5) + bytes(64), "has 5 dimensions"),
    "zero": (header(tensors=1) + tensor(axes=(0,)) + bytes(64), "claims the shape"),
    "beyond the end": (header(tensors=1) + tensor(offset=1 << 62) + bytes(256), "truncated"),
    "large": (header(tensors=1) + tensor(axes=(1 << 30,)) + bytes(256), "truncated"),
    "unaligned": (header(tensors=1) + tensor(offset=4) + bytes(256), "not aligned"),
    "same tensor": (header(tensors=2) + 2 * tensor() + bytes(256), "occurs twice"),
    "block": (header(tensors=1) + tensor(axes=(33,), kind=8) + bytes(256), "no multiple"),
    "foreign block": (header(tensors=1) + tensor(axes=(32,), kind=12) + bytes(256), "no multiple of the block of Q4_K"),
    "foreign and short": (header(tensors=1) + tensor(axes=(256,), kind=12) + bytes(100), "truncated"),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_file_that_lies_is_refused_by_name(tmp_path: Path, lie: str) -> None:
    content, message = LIES[lie]
    path = tmp_path / "lie.gguf"
    path.write_bytes(content)
    with pytest.raises(MalformedError, match=rf"lie\.gguf.*{message}"):
        GgufFile.open(path)


def test_a_text_that_no_file_needs_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(header(keys=1) + text(b"k") + struct.pack("<I", 8) + text(bytes((1 << 24) + 1)))
    with pytest.raises(MalformedError, match="at most 16777216 are read"):
        GgufFile.open(path)
    path.write_bytes(header(keys=1) + text(b"k") + struct.pack("<IIQ", 9, 8, 1) + text(bytes((1 << 16) + 1)))
    with pytest.raises(MalformedError, match="at most 65536 are read"):
        GgufFile.open(path)


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    ours = {code: block[1:] for code, block in FOREIGN_BLOCKS.items()} | {kind: kind.block for kind in TensorType}
    theirs = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert ours.items() <= theirs.items()
    assert {code: name for code, (name, *_) in FOREIGN_BLOCKS.items()} == {
        code: gguf.GGMLQuantizationType(code).name for code in FOREIGN_BLOCKS
    }


def test_unknown_versions_and_tensor_types_are_incompatible_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes(header(version=9) + bytes(64))
    with pytest.raises(IncompatibleError, match="version 9"):
        GgufFile.open(path)
    path.write_bytes(header(tensors=1) + tensor(axes=(256,), kind=14) + bytes(512))
    with GgufFile.open(path) as file, pytest.raises(IncompatibleError, match="tensor t is Q6_K"):
        file.tensor_bytes("t")


def test_values_of_the_wrong_kind_are_refused(stories_source: Path) -> None:
    with GgufFile.open(stories_source) as file:
        for read, key, message in [
            (file.integer, "general.name", "whole number"),
            (file.number, "general.name", "number"),
            (file.text, "llama.block_count", "text"),
            (file.texts, "tokenizer.ggml.scores", "list of texts"),
            (file.numbers, "tokenizer.ggml.tokens", "list of numbers"),
            (file.integer, "no.such.key", "no metadata key"),
        ]:
            with pytest.raises(MalformedError, match=message):
                read(key)
        with pytest.raises(MalformedError, match="true or false"):
            file.flag("general.name", default=True)
        with pytest.raises(MalformedError, match="no tensor"):
            file.tensor_bytes("no.such.tensor")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 14_500), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_bytes_in_the_header_are_read_or_refused(
    stories_source: Path, tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    """Nothing but this project's own errors comes out, however the header is damaged."""
    content = bytearray(stories_source.read_bytes())
    for position, value in changes:
        content[position] = value
    path = tmp_path / "odd.gguf"
    path.write_bytes(content)
    with suppress(NightshiftError), GgufFile.open(path) as file:
        recognised = recognise(file)
        vocabulary = read_vocabulary(file, recognised.dimensions.vocabulary)
        tokenizer_json(file, vocabulary)
