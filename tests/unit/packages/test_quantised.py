"""The codes and scales of weights.bin are those of model.gguf, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import gguf
import numpy as np
import onnx
import pytest

from nightshift.packages.architecture import half_split_rows
from nightshift.packages.gguf_file import TensorType
from nightshift.packages.package import ModelPackage
from nightshift.packages.quantised import float_values, from_blocks, quantise
from nightshift.protocol.errors import IncompatibleError

KINDS = {TensorType.Q8_0: gguf.GGMLQuantizationType.Q8_0, TensorType.Q4_0: gguf.GGMLQuantizationType.Q4_0}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_code_and_scale_means_what_llama_cpp_means(kind: TensorType) -> None:
    generator = np.random.default_rng(1)
    raw = generator.integers(0, 256, (64, 3, kind.block[1]), np.uint8)  # every code, -128 too
    scales = generator.standard_normal((64, 3)).astype(np.float16)
    raw[..., :2] = scales[..., None].view(np.uint8)
    matrix = from_blocks(raw.reshape(-1), (64, 96), kind)
    theirs = gguf.quants.dequantize(raw.reshape(64, -1), KINDS[kind])
    np.testing.assert_array_equal(matrix.dequantised(), theirs)
    np.testing.assert_array_equal(matrix.scales, scales.astype(np.float32))
    assert matrix.shape == (64, 96)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0])
def test_quantising_gives_the_bytes_of_the_gguf_package(kind: TensorType, size: float) -> None:
    generator = np.random.default_rng(7)
    values = (generator.standard_normal((2000, 96)) * size).astype(np.float32)
    values[3] = 0.0  # a block of zeros has no scale
    values[4, :32] = np.arange(-16, 16)  # halves and ties
    values[5, :32] = values[5, 0]
    # Half of the rows as from bfloat16: with few bits many values lie exactly between two codes.
    values[1000:] = ((values[1000:].view(np.uint32) >> 16) << 16).view(np.float32)
    ours = quantise(values, kind)
    np.testing.assert_array_equal(ours, gguf.quants.quantize(values, KINDS[kind]))
    assert ours.shape == (2000, 3 * kind.block[1])


@pytest.mark.parametrize("kind", [TensorType.F32, TensorType.F16, TensorType.BF16])
def test_floats_widen_exactly(kind: TensorType) -> None:
    values = np.array([[1.0, -2.5], [0.15625, 96.0]], np.float32)  # representable in all three
    encoded = gguf.quants.quantize(values, gguf.GGMLQuantizationType(kind))
    np.testing.assert_array_equal(float_values(encoded.view(np.uint8).reshape(-1), (2, 2), kind), values)


def test_schemes_do_not_mix() -> None:
    with pytest.raises(IncompatibleError, match="no block scheme"):
        from_blocks(np.zeros(64, np.uint8), (1, 32), TensorType.F16)
    with pytest.raises(IncompatibleError, match="no block scheme"):
        quantise(np.zeros((1, 32), np.float32), TensorType.F16)
    with pytest.raises(IncompatibleError, match="is quantised"):
        float_values(np.zeros(34, np.uint8), (32,), TensorType.Q8_0)


def test_half_split_rows_undoes_the_permutation_of_llama_cpps_converter() -> None:
    rows = np.arange(24)
    # As `permute` of convert_hf_to_gguf.py does it: heads, halves, pairs; then halves and pairs swapped.
    permuted = rows.reshape(3, 2, 4).swapaxes(1, 2).reshape(-1)
    np.testing.assert_array_equal(permuted[half_split_rows(3, 24)], rows)


def stored(package: ModelPackage, name: str) -> np.ndarray:
    """A tensor of weights.bin, found through train.onnx."""
    model = onnx.load(package.path("train"), load_external_data=False)
    (tensor,) = [entry for entry in model.graph.initializer if entry.name == name]
    place = {entry.key: entry.value for entry in tensor.external_data}
    assert place["location"] == "weights.bin"
    assert int(place["offset"]) % 4096 == 0
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    data = package.path("weights").read_bytes()[int(place["offset"]) :][: int(place["length"])]
    return np.frombuffer(data, dtype).reshape(tensor.dims)


@pytest.mark.parametrize("scheme", ["Q8_0", "Q4_0"])
def test_weights_bin_holds_the_numbers_of_model_gguf(stories: Callable[[str], ModelPackage], scheme: str) -> None:
    package, bits = stories(scheme), 8 if scheme == "Q8_0" else 4
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(package.path("gguf")).tensors}
    for name, gguf_name, heads in [
        ("embed_tokens", "token_embd", 0),
        ("layers.3.q_proj", "blk.3.attn_q", 8),
        ("layers.3.k_proj", "blk.3.attn_k", 4),
        ("layers.3.v_proj", "blk.3.attn_v", 0),
        ("layers.0.up_proj", "blk.0.ffn_up", 0),
    ]:
        tensor = tensors[f"{gguf_name}.weight"]
        assert tensor.tensor_type.name == scheme
        theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if heads:
            theirs = theirs[half_split_rows(heads, theirs.shape[0])]
        codes, scales = stored(package, f"{name}.codes"), stored(package, f"{name}.scales")
        if bits == 4:
            codes = np.stack([codes & 15, codes >> 4], -1).reshape(theirs.shape)
        ours = (codes.astype(np.float32) - 2 ** (bits - 1)) * np.repeat(scales, 32, axis=1)
        np.testing.assert_array_equal(ours, theirs)


def test_rows_that_are_no_multiple_of_32_stay_float(stories: Callable[[str], ModelPackage]) -> None:
    package = stories("Q4_0")
    (tensor,) = [t for t in gguf.GGUFReader(package.path("gguf")).tensors if t.name == "blk.2.ffn_down.weight"]
    assert tensor.tensor_type.name == "F16"
    np.testing.assert_array_equal(stored(package, "layers.2.down_proj").T, tensor.data.astype(np.float32))
