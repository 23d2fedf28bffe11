"""An exported decoder as the graphs of a package: the same inputs and outputs, whatever its architecture.

optimum exports a model with a cache as input_ids, attention_mask, position_ids and past_key_values -> logits and
present. Here nodes are put before and after that, so that the engine meets the contract of docs/packages.md: the
cache is a buffer of which `past_length` positions count, the mask and the positions follow from that, and only the last
position's logits leave. The cache is copied once for each token, which the graphs that are built here never do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper, numpy_helper

from nightshift.packages.weights_file import ALIGNMENT_BYTES
from nightshift.protocol.errors import IncompatibleError

_PAST = re.compile(r"past_key_values\.(\d+)\.(key|value)")
_PREFIX: Final = "nightshift."
_KNOWN_INPUTS: Final = frozenset({"input_ids", "attention_mask", "position_ids"})
_INLINE_BYTES: Final = 1024
_ENDLESS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An exported decoder whose weights lie in weights.bin.

    Attributes:
        model: without weights; its large initialisers point into weights.bin.
        layers: number of key-value caches.
        kv_heads: heads of each.
        head_dim: values of each head.
        vocabulary: logits of each position.
    """

    model: onnx.ModelProto
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    def decode(self) -> bytes:
        """decode.onnx; see docs/packages.md for its inputs and outputs."""
        graph = _Around(self)
        graph.input("past_length", TensorProto.INT64, [])
        total = graph.node("Add", "past_length", graph.length)
        graph.positions_and_mask("past_length", total)
        shape: list[Any] = ["B", self.kv_heads, "S", self.head_dim]
        zero, last_axis = graph.integers(0), graph.integers(2)
        end, begin = (
            graph.node("Reshape", "past_length", graph.integers(1)),
            graph.node("Reshape", total, graph.integers(1)),
        )
        for name in self._caches("past"):
            graph.input(name, TensorProto.FLOAT, shape)
            graph.node_into(f"{_PREFIX}{name}", "Slice", name, zero, end, last_axis)
        graph.exported()
        graph.node_into("logits", "Gather", graph.renamed("logits"), graph.integer(-1), axis=1)
        graph.output("logits", TensorProto.FLOAT, ["B", self.vocabulary])
        for past, present in zip(self._caches("past"), self._caches("present"), strict=True):
            # What lies behind the new positions stays, so that the buffer keeps its size.
            rest = graph.node("Slice", past, begin, graph.integers(_ENDLESS), last_axis)
            graph.node_into(present, "Concat", graph.renamed(present), rest, axis=2)
            graph.output(present, TensorProto.FLOAT, ["B", self.kv_heads, "capacity", self.head_dim])
        return graph.serialised()

    def evaluate(self) -> bytes:
        """evaluate.onnx; see docs/packages.md for its inputs and outputs."""
        graph = _Around(self)
        graph.input("labels", TensorProto.INT64, ["B", "T"])
        graph.input("weights", TensorProto.FLOAT, ["B", "T"])
        graph.input("lora_scale", TensorProto.FLOAT, [])  # of the contract; no adapter reads it
        graph.positions_and_mask(graph.integer(0), graph.length)
        batch = graph.node("Gather", graph.node("Shape", "input_ids"), graph.integers(0))
        empty = graph.node("Concat", batch, graph.integers(self.kv_heads, 0, self.head_dim), axis=0)
        for name in self._caches("past"):
            graph.node_into(f"{_PREFIX}{name}", "ConstantOfShape", empty)
        graph.exported()
        logp = graph.node("LogSoftmax", graph.renamed("logits"), axis=-1)
        # Labels of weight 0 may be anything: they are not looked at.
        known = graph.node("Clip", "labels", graph.integer(0), graph.integer(self.vocabulary - 1))
        index = graph.node("Unsqueeze", known, graph.integers(2))
        picked = graph.node("Squeeze", graph.node("GatherElements", logp, index, axis=2), graph.integers(2))
        graph.node_into("token_loss", "Mul", graph.node("Neg", picked), "weights")
        graph.output("token_loss", TensorProto.FLOAT, ["B", "T"])
        return graph.serialised()

    def _caches(self, side: str) -> list[str]:
        return [f"{side}.{layer}.{part}" for layer in range(self.layers) for part in ("key", "value")]


def read_exported(path: Path, weights: Path) -> ExportedModel:
    """Read model.onnx, move its weights to weights.bin, and look at its shape.

    Raises:
        IncompatibleError: inputs, outputs or a cache that are not those of a decoder.
    """
    model = onnx.load(str(path))
    pasts = [entry for entry in model.graph.input if _PAST.fullmatch(entry.name)]
    strange = sorted({entry.name for entry in model.graph.input} - {entry.name for entry in pasts} - _KNOWN_INPUTS)
    logits = [entry for entry in model.graph.output if entry.name == "logits"]
    if strange or not pasts or not logits:
        what = f"the input {strange[0]!r}" if strange else "no cache" if not pasts else "no logits"
        raise IncompatibleError(f"{path}: the exported graph has {what}; only decoders with a key-value cache are run")
    shapes = {tuple(d.dim_value for d in entry.type.tensor_type.shape.dim) for entry in pasts}
    (shape,) = shapes if len(shapes) == 1 else {(0, 0, 0, 0)}
    vocabulary = logits[0].type.tensor_type.shape.dim[-1].dim_value
    if len(shape) != 4 or not (shape[1] and shape[3] and vocabulary):
        raise IncompatibleError(f"{path}: the layers' caches differ in shape, or state none")
    _move_weights(model, weights)
    return ExportedModel(model, len(pasts) // 2, shape[1], shape[3], vocabulary)


def _move_weights(model: onnx.ModelProto, weights: Path) -> None:
    """Write large initialisers to weights.bin, at offsets that can be mapped, and point to them."""
    with weights.open("wb") as file:
        for tensor in model.graph.initializer:
            data = numpy_helper.to_array(tensor).tobytes()
            if len(data) < _INLINE_BYTES:
                continue
            file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
            place = {"location": weights.name, "offset": str(file.tell()), "length": str(len(data))}
            file.write(data)
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                tensor.ClearField(field)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=value)


class _Around:
    """A graph that is built around an exported one."""

    def __init__(self, exported: ExportedModel) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(exported.model)
        self._inputs = {entry.name for entry in exported.model.graph.input}
        self._nodes: list[onnx.NodeProto] = []
        self._new_inputs: list[onnx.ValueInfoProto] = []
        self._new_outputs: list[onnx.ValueInfoProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.input("input_ids", TensorProto.INT64, ["B", "T"])
        self.length = self.node("Gather", self.node("Shape", "input_ids"), self.integer(1))

    def input(self, name: str, kind: int, shape: Sequence[Any]) -> None:
        self._new_inputs.append(helper.make_tensor_value_info(name, kind, shape))

    def output(self, name: str, kind: int, shape: Sequence[Any]) -> None:
        self._new_outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.node_into(f"{_PREFIX}n{len(self._nodes)}", kind, *inputs, **attributes)

    def node_into(self, name: str, kind: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def integer(self, value: int) -> str:
        return self._constant(helper.make_tensor(f"{_PREFIX}i{len(self._constants)}", TensorProto.INT64, [], [value]))

    def integers(self, *values: int) -> str:
        name = f"{_PREFIX}i{len(self._constants)}"
        return self._constant(helper.make_tensor(name, TensorProto.INT64, [len(values)], list(values)))

    def _constant(self, tensor: onnx.TensorProto) -> str:
        self._constants.append(tensor)
        return str(tensor.name)

    def positions_and_mask(self, begin: str, end: str) -> None:
        """What the exported graph asks for beside the tokens: positions [B, T], a mask of ones [B, end]."""
        batch = self.node("Gather", self.node("Shape", "input_ids"), self.integers(0))
        if "position_ids" in self._inputs:
            row = self.node("Unsqueeze", self.node("Range", begin, end, self.integer(1)), self.integers(0))
            self.node_into(f"{_PREFIX}position_ids", "Expand", row, self.node("Shape", "input_ids"))
        if "attention_mask" in self._inputs:
            shape = self.node("Concat", batch, self.node("Reshape", end, self.integers(1)), axis=0)
            one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
            self.node_into(f"{_PREFIX}attention_mask", "ConstantOfShape", shape, value=one)

    def renamed(self, name: str) -> str:
        """What a tensor of the exported graph is called inside this one."""
        past = _PAST.fullmatch(name)
        if past is not None:
            return f"{_PREFIX}past.{past[1]}.{past[2]}"
        if name == "input_ids" or not name:
            return name
        return f"{_PREFIX}{name}" if name in self._inputs else f"{_PREFIX}out.{name}" if self._leaves(name) else name

    def _leaves(self, name: str) -> bool:
        return any(entry.name == name for entry in self._model.graph.output)

    def exported(self) -> None:
        """Put the exported graph's nodes here."""
        renames = {entry.name: self.renamed(entry.name) for entry in self._model.graph.input}
        renames |= {entry.name: self.renamed(entry.name) for entry in self._model.graph.output}
        for node in self._model.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            _rename(copy, renames)
            self._nodes.append(copy)

    def serialised(self) -> bytes:
        graph = self._model.graph
        for field in (graph.node, graph.input, graph.output, graph.value_info):
            del field[:]
        graph.node.extend(self._nodes)
        graph.input.extend(self._new_inputs)
        graph.output.extend(self._new_outputs)
        graph.initializer.extend(self._constants)
        data: bytes = self._model.SerializeToString(deterministic=True)
        return data


def _rename(node: onnx.NodeProto, renames: dict[str, str]) -> None:
    """Also inside branches and loops, which see the names around them."""
    node.input[:] = [renames.get(name, name) for name in node.input]
    node.output[:] = [renames.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for inner in [attribute.g, *attribute.graphs]:
            for child in inner.node:
                _rename(child, renames)
