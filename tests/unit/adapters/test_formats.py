from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from nightshift.protocol.adapters import AdapterError, AdapterLayout, FormatError, Target, initialise
from nightshift.protocol.adapters.formats import from_safetensors, layout_of, to_peft, to_safetensors

LAYOUT = AdapterLayout(layers=2, targets=(Target("q_proj", 6, 4), Target("down_proj", 5, 6)), rank=3, alpha=12.5)


def adapter() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in LAYOUT.shapes().items()}


def rewrite(data: bytes, change: object) -> bytes:
    """The file with its JSON header replaced by `change(header)`."""
    (length,) = struct.unpack("<Q", data[:8])
    header = change(json.loads(data[8 : 8 + length]))  # type: ignore[operator]  # a plain callable
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_what_is_written_is_read_back_to_the_bit() -> None:
    tensors = adapter()
    back = from_safetensors(to_safetensors(tensors, LAYOUT), LAYOUT)
    assert tuple(back) == tuple(LAYOUT.shapes())
    for name, tensor in tensors.items():
        assert back[name].tobytes() == tensor.tobytes()
        assert back[name].flags.owndata or back[name].base is not None
        assert back[name].flags.writeable


def test_equal_adapters_give_equal_bytes_whatever_the_order_of_the_dictionary() -> None:
    tensors = adapter()
    shuffled = dict(sorted(tensors.items(), reverse=True))
    assert to_safetensors(tensors, LAYOUT) == to_safetensors(shuffled, LAYOUT)


def test_the_safetensors_library_reads_it(tmp_path) -> None:
    tensors = adapter()
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(to_safetensors(tensors, LAYOUT))
    with safetensors.safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(file.get_tensor(name), tensor)


def test_what_the_safetensors_library_writes_is_read() -> None:
    tensors = adapter()
    back = from_safetensors(safetensors.numpy.save(tensors), LAYOUT)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_the_file_states_its_layout() -> None:
    assert layout_of(to_safetensors(adapter(), LAYOUT)) == LAYOUT
    with pytest.raises(FormatError, match="not written by nightshift"):
        layout_of(safetensors.numpy.save(adapter()))


def test_another_alpha_is_another_adapter() -> None:
    data = to_safetensors(adapter(), LAYOUT)
    other = AdapterLayout(layers=2, targets=LAYOUT.targets, rank=3, alpha=25)
    with pytest.raises(FormatError, match=r"alpha 12.5.*expected.*alpha 25"):
        from_safetensors(data, other)


def broken_files() -> list[tuple[str, bytes, str]]:
    good = to_safetensors(adapter(), LAYOUT)
    name = "layers.0.q_proj.lora_a"

    def entry(**fields: object) -> bytes:
        return rewrite(good, lambda header: {**header, name: {**header[name], **fields}})

    nan = bytearray(good)
    nan[-4:] = struct.pack("<f", float("nan"))
    return [
        ("empty", b"", "bytes"),
        ("cut short", good[:-4], "do not fit"),
        ("too long", good + bytes(4), "follow"),
        ("huge", good + bytes(8 << 20), "bytes and a header"),
        ("header longer than the file", struct.pack("<Q", 1 << 60) + good[8:], "claims"),
        ("not JSON", rewrite(good, lambda header: b"{" * 40), "JSON"),
        ("deep JSON", rewrite(good, lambda header: b"[" * 100_000), "JSON"),
        ("a list", rewrite(good, lambda header: b"[]"), "object"),
        ("a key twice", rewrite(good, lambda header: b'{"a": 1, "a": 2}'), "twice"),
        ("missing", rewrite(good, lambda header: {k: v for k, v in header.items() if k != name}), "gap"),
        ("renamed", rewrite(good, lambda header: {("x" if k == name else k): v for k, v in header.items()}), "missing"),
        ("half floats", entry(dtype="F16"), "F32"),
        ("wrong shape", entry(shape=[6, 3]), "must be float32"),
        ("other size", entry(shape=[3, 7]), "data_offsets"),
        ("negative", entry(shape=[-3, -6]), "two sizes"),
        ("overlap", entry(data_offsets=[4, 76]), "overlap"),
        ("beyond the end", entry(data_offsets=[1 << 30, (1 << 30) + 72]), "data_offsets"),
        ("backwards", entry(data_offsets=[72, 0]), "data_offsets"),
        ("not a number", bytes(nan), "not finite"),
        ("boolean offsets", entry(data_offsets=[False, 72]), "two sizes"),
    ]


@pytest.mark.parametrize(
    ("data", "word"), [case[1:] for case in broken_files()], ids=[case[0] for case in broken_files()]
)
def test_a_broken_file_is_refused_with_the_reason(data: bytes, word: str) -> None:
    with pytest.raises(FormatError, match=word):
        from_safetensors(data, LAYOUT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"alpha":1,"layers":1,"rank":1,"targets":[["q_proj",1]]}',
        '{"alpha":1,"layers":1e9,"rank":1,"targets":[]}',
        '{"alpha":1,"layers":1,"rank":1,"targets":[[["q"],1,1]]}',
    ],
)
def test_a_hostile_layout_in_the_metadata_is_refused(text: str) -> None:
    metadata = {"nightshift.adapter": text}
    data = rewrite(to_safetensors(adapter(), LAYOUT), lambda header: {**header, "__metadata__": metadata})
    with pytest.raises(AdapterError):
        layout_of(data)


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_is_raised(noise: bytes) -> None:
    good = to_safetensors(adapter(), LAYOUT)
    for data in (noise, struct.pack("<Q", len(noise)) + noise + good[-300:]):
        with pytest.raises(AdapterError):
            layout_of(data)
    damaged = good[: 8 + len(noise)] + noise + good[8 + 2 * len(noise) :]
    if damaged != good:
        try:
            from_safetensors(damaged, LAYOUT)
        except AdapterError:
            return


def test_writing_checks_too() -> None:
    with pytest.raises(FormatError, match="missing"):
        to_safetensors({}, LAYOUT)


def test_the_peft_folder_has_pefts_names_and_scale() -> None:
    tensors = {**initialise(LAYOUT, bytes(32)), "layers.1.down_proj.lora_b": np.ones((6, 3), np.float32)}
    files = to_peft(tensors, LAYOUT, base_model="somewhere/base")
    config = json.loads(files["adapter_config.json"])
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 12.5)
    assert config["target_modules"] == ["q_proj", "down_proj"]
    assert config["base_model_name_or_path"] == "somewhere/base"
    weights = safetensors.numpy.load(files["adapter_model.safetensors"])
    assert len(weights) == 8
    prefix = "base_model.model.model.layers"
    np.testing.assert_array_equal(weights[f"{prefix}.1.mlp.down_proj.lora_B.weight"], np.ones((6, 3)))
    np.testing.assert_array_equal(
        weights[f"{prefix}.0.self_attn.q_proj.lora_A.weight"], tensors["layers.0.q_proj.lora_a"]
    )
