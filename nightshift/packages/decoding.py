"""The decode graph: new tokens and a cache of keys and values -> logits of the last token.

The same model as `transformer`, written for generation: attention is one op that writes the new keys
and values into the cache it reads (ONNX Runtime's GroupQueryAttention, with one buffer bound as past and
as present), residual sums are part of the next norm, and nothing is kept for a backward pass.
"""

from __future__ import annotations

from nightshift.packages.architecture import Architecture
from nightshift.packages.graph import INT64_MAX, GraphBuilder, Port

_FLOAT, _INTEGER = "float32", "int64"
_INT32 = 6  # TensorProto.INT32
_MICROSOFT = "com.microsoft"


def decode_step(architecture: Architecture, lora_targets: tuple[str, ...]) -> GraphBuilder:
    """The decode graph.

    Inputs `input_ids` int64 [B, T], `past_length` int64 [] (tokens in the cache), `past.{i}.key|value` float32
    [B, kv_heads, S, head_dim] whose first `past_length` positions count; outputs `logits` float32
    [B, vocabulary] of the last position and `present.{i}.key|value`: with S > past_length and the buffers of
    `past` bound as outputs, the cache itself, extended in place; otherwise a copy of past_length + T positions.
    Several sequences at once take one token each unless the cache is empty.

    Args:
        architecture: The model.
        lora_targets: Projections with an adapter, whose tensors are inputs; none for the base model alone.
    """
    return _DecodeStep(architecture, lora_targets).build()


class _DecodeStep:
    """One graph being made."""

    def __init__(self, architecture: Architecture, lora_targets: tuple[str, ...]) -> None:
        self._graph = GraphBuilder()
        self._architecture = architecture
        self._targets = lora_targets

    def build(self) -> GraphBuilder:
        g, d = self._graph, self._architecture.dimensions
        self._declare_inputs()
        self._prepare_positions()
        residual, delta = g.emit("FrozenRows", "input_ids", matrix="embed_tokens"), ""
        for layer in range(d.layers):
            prefix = f"layers.{layer}"
            normed, residual = self._add_norm(residual, delta, f"{prefix}.input_norm")
            delta = self._attention(normed, prefix, layer)
            normed, residual = self._add_norm(residual, delta, f"{prefix}.ffn_norm")
            delta = self._feed_forward(normed, prefix)
        last = [g.emit("Slice", x, g.integers(-1), g.integers(INT64_MAX), g.integers(1)) for x in (residual, delta)]
        final, _ = self._add_norm(last[0], last[1], "norm")
        logits = g.emit("FrozenLinear", final, matrix=self._architecture.output_matrix)
        g.emit_into(("logits",), "Reshape", logits, g.integers(-1, d.vocabulary))
        g.outputs.insert(0, Port("logits", _FLOAT, ("B", d.vocabulary)))
        return g

    def _declare_inputs(self) -> None:
        g, d = self._graph, self._architecture.dimensions
        g.input("input_ids", _INTEGER, ("B", "T"))
        g.input("past_length", _INTEGER, ())
        if self._targets:
            g.input("lora_scale", _FLOAT, ())
        for layer in range(d.layers):
            for projection in self._targets:
                rows, columns = d.projection_shape(projection)
                g.input(f"layers.{layer}.{projection}.lora_a", _FLOAT, ("r", columns))
                g.input(f"layers.{layer}.{projection}.lora_b", _FLOAT, (rows, "r"))
        for layer in range(d.layers):
            for part in ("key", "value"):
                g.input(f"past.{layer}.{part}", _FLOAT, ("B", d.kv_heads, "S", d.head_dim))

    def _prepare_positions(self) -> None:
        """Rotary tables of the new positions, and the lengths that the attention op asks for."""
        g = self._graph
        count = g.emit("Squeeze", g.size("input_ids", 1))
        total = g.emit("Add", "past_length", count)
        positions = g.emit("Range", "past_length", total, g.integer(1))
        column = g.emit("Cast", g.emit("Unsqueeze", positions, g.integers(1)), to=1)
        angles = g.emit("Mul", column, g.constant(self._architecture.inverse_frequencies[None]))
        self._cosine, self._sine = g.emit("Cos", angles), g.emit("Sin", angles)
        self._total = g.emit("Cast", total, to=_INT32)
        last = g.emit("Cast", g.emit("Sub", total, g.integer(1)), to=_INT32)
        self._last = g.emit("Expand", last, g.size("input_ids", 0))

    def _attention(self, x: str, prefix: str, layer: int) -> str:
        g, d = self._graph, self._architecture.dimensions
        query = self._turned(self._linear(x, f"{prefix}.q_proj"), d.heads, f"{prefix}.q_norm")
        key = self._turned(self._linear(x, f"{prefix}.k_proj"), d.kv_heads, f"{prefix}.k_norm")
        value = self._linear(x, f"{prefix}.v_proj")
        mixed, present = g.fresh_name("attention"), (f"present.{layer}.key", f"present.{layer}.value")
        g.emit_into(
            (mixed, *present),
            "GroupQueryAttention",
            query,
            key,
            value,
            f"past.{layer}.key",
            f"past.{layer}.value",
            self._last,
            self._total,
            domain=_MICROSOFT,
            num_heads=d.heads,
            kv_num_heads=d.kv_heads,
        )
        for name in present:
            g.declare_output(name, _FLOAT, ("B", d.kv_heads, "capacity", d.head_dim))
        return self._linear(mixed, f"{prefix}.o_proj")

    def _turned(self, x: str, heads: int, gain: str) -> str:
        """[B, T, heads * head_dim] with norms of the heads, where the family has them, and rotary embedding."""
        g, d = self._graph, self._architecture.dimensions
        if self._architecture.family.head_norm:
            split = g.emit("Reshape", x, g.integers(0, 0, heads, d.head_dim))
            normed = g.emit("RmsNorm", split, gain, epsilon=d.rms_eps)
            x = g.emit("Reshape", normed, g.integers(0, 0, heads * d.head_dim))
        return g.emit("RotaryEmbedding", x, g.integers(0), self._cosine, self._sine, domain=_MICROSOFT)

    def _feed_forward(self, x: str, prefix: str) -> str:
        g = self._graph
        gate = self._linear(x, f"{prefix}.gate_proj")
        silu = g.emit("QuickGelu", gate, domain=_MICROSOFT, alpha=1.0)
        return self._linear(g.emit("Mul", silu, self._linear(x, f"{prefix}.up_proj")), f"{prefix}.down_proj")

    def _add_norm(self, residual: str, delta: str, gain: str) -> tuple[str, str]:
        """Norm of residual + delta, and that sum; the first norm of a model has nothing to add."""
        g, epsilon = self._graph, self._architecture.dimensions.rms_eps
        if not delta:
            return g.emit("RmsNorm", residual, gain, epsilon=epsilon), residual
        normed, total = g.fresh_name("normed"), g.fresh_name("residual")
        g.emit_into(
            (normed, "", "", total),
            "SkipSimplifiedLayerNormalization",
            residual,
            delta,
            gain,
            domain=_MICROSOFT,
            epsilon=epsilon,
        )
        return normed, total

    def _linear(self, x: str, name: str) -> str:
        g = self._graph
        projection = name.rsplit(".", 1)[1]
        y = g.emit("FrozenLinear", x, matrix=name)
        if self._architecture.family.attention_bias and projection in ("q_proj", "k_proj", "v_proj"):
            y = g.emit("Add", y, f"{name}.bias")
        if projection in self._targets:
            inner = g.emit("Mul", g.emit("Linear", x, f"{name}.lora_a"), "lora_scale")
            y = g.emit("Add", y, g.emit("Linear", inner, f"{name}.lora_b"))
        return y
