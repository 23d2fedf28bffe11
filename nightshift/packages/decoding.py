"""The decode graph: new tokens and a cache of keys and values -> logits of the last token.

The same model as `transformer`, written for generation. Attention is one op that writes the new keys and
values into the cache it reads (ONNX Runtime's GroupQueryAttention, with one buffer bound as past and as
present), a residual sum is part of the norm that follows it, and nothing is kept for a backward pass.
Between the attention ops activations are matrices, one row for each token, so that a LoRA adapter costs two
Gemm nodes; for a model without one there is a graph without them (docs/benchmarks/inference.md: each node
costs microseconds, and a model of 135M parameters has 210 adapted matrices).
"""

from __future__ import annotations

from nightshift.packages.architecture import Architecture
from nightshift.packages.graph import INT64_MAX, GraphBuilder

_FLOAT, _INTEGER = "float32", "int64"
_TO_FLOAT, _TO_INT32 = 1, 6  # TensorProto.DataType
_MICROSOFT = "com.microsoft"


def decode_step(architecture: Architecture, lora_targets: tuple[str, ...]) -> GraphBuilder:
    """The decode graph.

    Inputs `input_ids` int64 [B, T], `past_length` int64 [] (tokens in the cache, P), `past.{i}.key|value` float32
    [B, kv_heads, S, head_dim], whose first P positions count. Outputs `logits` float32 [B, vocabulary] of the last
    position, and `present.{i}.key|value`: where the buffers of `past` are bound as outputs (S >= P + T), the cache,
    extended in place; otherwise, with S = P, a copy of P + T positions. Several sequences at once take one token
    each, unless the cache is empty.

    The adapter's `lora_b` tensors are given multiplied by alpha / r.

    Args:
        architecture: The model.
        lora_targets: Projections with an adapter, whose tensors are inputs; none for the base model alone.
    """
    return _DecodeStep(architecture, lora_targets).graph


class _DecodeStep:
    """One graph, made in the constructor."""

    def __init__(self, architecture: Architecture, lora_targets: tuple[str, ...]) -> None:
        self.graph = GraphBuilder()
        self._architecture = architecture
        self._targets = lora_targets
        self._declare_inputs()
        self._prepare_positions()
        self._emit_model()

    def _declare_inputs(self) -> None:
        g, d = self.graph, self._architecture.dimensions
        g.input("input_ids", _INTEGER, ("B", "T"))
        g.input("past_length", _INTEGER, ())
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
        g = self.graph
        self._shape = g.emit("Shape", "input_ids")
        total = g.emit("Add", "past_length", g.emit("Squeeze", g.size("input_ids", 1)))
        positions = g.emit("Range", "past_length", total, g.integer(1))
        column = g.emit("Cast", g.emit("Unsqueeze", positions, g.integers(1)), to=_TO_FLOAT)
        angles = g.emit("Mul", column, g.constant(self._architecture.inverse_frequencies[None]))
        self._cosine, self._sine = g.emit("Cos", angles), g.emit("Sin", angles)
        self._total = g.emit("Cast", total, to=_TO_INT32)
        last = g.emit("Cast", g.emit("Sub", total, g.integer(1)), to=_TO_INT32)
        self._last = g.emit("Expand", last, g.size("input_ids", 0))

    def _emit_model(self) -> None:
        g, d = self.graph, self._architecture.dimensions
        embedded = g.emit("FrozenRows", "input_ids", matrix="embed_tokens")
        residual, delta = g.emit("Reshape", embedded, g.integers(-1, d.hidden)), ""
        for layer in range(d.layers):
            prefix = f"layers.{layer}"
            normed, residual = self._add_norm(residual, delta, f"{prefix}.input_norm")
            delta = self._attention(normed, layer)
            normed, residual = self._add_norm(residual, delta, f"{prefix}.ffn_norm")
            delta = self._feed_forward(normed, prefix)
        final, _ = self._add_norm(self._last_position(residual), self._last_position(delta), "norm")
        g.emit_into(("logits",), "FrozenLinear", final, matrix=self._architecture.output_matrix)
        g.declare_output("logits", _FLOAT, ("B", d.vocabulary))

    def _attention(self, x: str, layer: int) -> str:
        """Of [B * T, hidden]; the heads' mixed values through the output projection, the same shape."""
        g, d, prefix = self.graph, self._architecture.dimensions, f"layers.{layer}"
        query = self._turned(self._linear(x, f"{prefix}.q_proj"), d.heads, f"{prefix}.q_norm")
        key = self._turned(self._linear(x, f"{prefix}.k_proj"), d.kv_heads, f"{prefix}.k_norm")
        value = self._by_sequence(self._linear(x, f"{prefix}.v_proj"), d.kv_heads * d.head_dim)
        mixed, present = g.fresh_name("attention"), [f"present.{layer}.key", f"present.{layer}.value"]
        past = [f"past.{layer}.key", f"past.{layer}.value"]
        g.emit_into(
            (mixed, *present),
            "GroupQueryAttention",
            *(query, key, value, *past, self._last, self._total),
            domain=_MICROSOFT,
            num_heads=d.heads,
            kv_num_heads=d.kv_heads,
        )
        for name in present:
            g.declare_output(name, _FLOAT, ("B", d.kv_heads, "capacity", d.head_dim))
        return self._linear(g.emit("Reshape", mixed, g.integers(-1, d.heads * d.head_dim)), f"{prefix}.o_proj")

    def _turned(self, x: str, heads: int, gain: str) -> str:
        """[B, T, heads * head_dim] with rotary embedding, after norms of the heads where the family has them."""
        g, d = self.graph, self._architecture.dimensions
        if self._architecture.family.head_norm:
            split = g.emit("Reshape", x, g.integers(-1, heads, d.head_dim))
            x = g.emit("RmsNorm", split, gain, epsilon=d.rms_eps)
        x = self._by_sequence(x, heads * d.head_dim)
        # The tables hold the new positions only, so the first of them is row 0.
        return g.emit("RotaryEmbedding", x, g.integers(0), self._cosine, self._sine, domain=_MICROSOFT)

    def _feed_forward(self, x: str, prefix: str) -> str:
        g = self.graph
        silu = g.emit("QuickGelu", self._linear(x, f"{prefix}.gate_proj"), domain=_MICROSOFT, alpha=1.0)
        inner = g.emit("Mul", silu, self._linear(x, f"{prefix}.up_proj"))
        return self._linear(inner, f"{prefix}.down_proj")

    def _add_norm(self, residual: str, delta: str, gain: str) -> tuple[str, str]:
        """Norm of residual + delta, and that sum; at the first norm there is nothing to add yet."""
        g, epsilon = self.graph, self._architecture.dimensions.rms_eps
        if not delta:
            return g.emit("RmsNorm", residual, gain, epsilon=epsilon), residual
        normed, total = g.fresh_name("normed"), g.fresh_name("residual")
        g.emit_into(
            (normed, "", "", total),
            "SkipSimplifiedLayerNormalization",
            *(residual, delta, gain),
            domain=_MICROSOFT,
            epsilon=epsilon,
        )
        return normed, total

    def _linear(self, x: str, name: str) -> str:
        g, projection = self.graph, name.rsplit(".", 1)[1]
        y = g.emit("FrozenLinear", x, matrix=name)
        if self._architecture.family.attention_bias and projection in ("q_proj", "k_proj", "v_proj"):
            y = g.emit("Add", y, f"{name}.bias")
        if projection in self._targets:
            inner = g.emit("Gemm", x, f"{name}.lora_a", transB=1)
            y = g.emit("Gemm", inner, f"{name}.lora_b", y, transB=1)
        return y

    def _by_sequence(self, x: str, width: int) -> str:
        """[..., width] -> [B, T, width]."""
        g = self.graph
        return g.emit("Reshape", x, g.emit("Concat", self._shape, g.integers(width), axis=0))

    def _last_position(self, x: str) -> str:
        """[B * T, hidden] -> [B, hidden]."""
        g, hidden = self.graph, self._architecture.dimensions.hidden
        whole = self._by_sequence(x, hidden)
        last = g.emit("Slice", whole, g.integers(-1), g.integers(INT64_MAX), g.integers(1))
        return g.emit("Reshape", last, g.integers(-1, hidden))
