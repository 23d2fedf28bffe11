"""The decoder of the Llama family as graph ops: embedding, blocks with LoRA, final norm.

Pre-norm blocks with grouped-query attention, rotary embedding and a SwiGLU feed-forward part
(Touvron et al. 2023, arXiv 2302.13971, section 2.2; Ainslie et al. 2023, arXiv 2305.13245);
families differ by the switches of `architecture.Family`. All seven matrices of a block can carry
a LoRA adapter (Hu et al. 2021, arXiv 2106.09685): y = W x + scale * B (A x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nightshift.packages.architecture import Architecture
from nightshift.packages.graph import GraphBuilder

_MASKED = -1e9
"""Added to the score of a future position; finite, so that no row of a softmax becomes NaN."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Per-run tables, made once and shared by all blocks.

    Attributes:
        cosine: float32 [T, head_dim / 2].
        sine: float32 [T, head_dim / 2].
        mask: float32 [queries, keys] added to the scores, where `queries` counts the T positions
            once for each query head of a group, head by head.
    """

    cosine: str
    sine: str
    mask: str


class Decoder:
    """Emits the parts of one model into one graph.

    Attributes:
        graph: Where they go.
        architecture: The model.
        lora_targets: Projections with an adapter; their tensors are inputs of the graph, called
            `layers.{i}.{projection}.lora_a` [r, in] and `.lora_b` [out, r].
    """

    def __init__(self, graph: GraphBuilder, architecture: Architecture, lora_targets: Sequence[str]) -> None:
        """Remember where to emit what."""
        self.graph = graph
        self.architecture = architecture
        self.lora_targets = tuple(lora_targets)

    def lora_names(self, layer: int) -> list[str]:
        """Names of the adapter's tensors of one block, in the order of the layout."""
        return [f"layers.{layer}.{projection}.lora_{side}" for projection in self.lora_targets for side in "ab"]

    def embed(self, input_ids: str) -> str:
        """Token ids int64 [B, T] -> float32 [B, T, hidden]."""
        return self.graph.emit("FrozenRows", input_ids, matrix="embed_tokens")

    def positions(self, input_ids: str) -> Positions:
        """Rotary tables and causal mask for T positions."""
        g, d = self.graph, self.architecture.dimensions
        positions = g.emit("Range", g.integer(0), g.emit("Squeeze", g.size(input_ids, 1)), g.integer(1))
        column = g.emit("Unsqueeze", positions, g.integers(1))
        angles = g.emit(
            "Mul",
            g.emit("Cast", column, to=1),
            g.constant(self.architecture.inverse_frequencies[None]),
        )
        future = g.emit("Greater", g.emit("Unsqueeze", positions, g.integers(0)), column)
        mask = g.emit("Where", future, g.scalar(_MASKED), g.scalar(0.0))
        group = d.heads // d.kv_heads
        if group > 1:
            mask = g.emit("Tile", mask, g.integers(group, 1))
        return Positions(g.emit("Cos", angles), g.emit("Sin", angles), mask)

    def block(self, x: str, layer: int, positions: Positions) -> str:
        """One block.

        Args:
            x: float32 [B, T, hidden].
            layer: Index from 0.
            positions: Tables for these T positions.

        Returns:
            float32 [B, T, hidden].
        """
        g, prefix = self.graph, f"layers.{layer}"
        normed = self._norm(x, f"{prefix}.input_norm")
        attended = self._attention(normed, prefix, positions)
        x = g.emit("Add", x, self._linear(attended, f"{prefix}.o_proj"))
        normed = self._norm(x, f"{prefix}.ffn_norm")
        gate = self._linear(normed, f"{prefix}.gate_proj")
        inner = g.emit("SwiGlu", gate, self._linear(normed, f"{prefix}.up_proj"))
        return g.emit("Add", x, self._linear(inner, f"{prefix}.down_proj"))

    def final_norm(self, x: str) -> str:
        """float32 [B, T, hidden] -> the same shape, ready for the output matrix."""
        return self._norm(x, "norm")

    def _attention(self, x: str, prefix: str, positions: Positions) -> str:
        g, d, family = self.graph, self.architecture.dimensions, self.architecture.family
        query = self._heads(self._linear(x, f"{prefix}.q_proj"), d.heads)
        key = self._heads(self._linear(x, f"{prefix}.k_proj"), d.kv_heads)
        value = self._heads(self._linear(x, f"{prefix}.v_proj"), d.kv_heads)
        if family.head_norm:
            query, key = self._norm(query, f"{prefix}.q_norm"), self._norm(key, f"{prefix}.k_norm")
        query = g.emit("RotaryEmbedding", query, positions.cosine, positions.sine)
        key = g.emit("RotaryEmbedding", key, positions.cosine, positions.sine)
        # The query heads that share a key head become further rows of one product.
        query = g.emit("Reshape", query, g.integers(0, d.kv_heads, -1, d.head_dim))
        mixed, _ = g.emit_many("Attention", query, key, value, positions.mask, count=2, scale=d.head_dim**-0.5)
        mixed = g.emit("Reshape", mixed, g.integers(0, d.heads, -1, d.head_dim))
        mixed = g.emit("Transpose", mixed, perm=[0, 2, 1, 3])
        return g.emit("Reshape", mixed, g.integers(0, 0, d.heads * d.head_dim))

    def _heads(self, x: str, heads: int) -> str:
        """[B, T, heads * head_dim] -> [B, heads, T, head_dim]."""
        g = self.graph
        split = g.emit("Reshape", x, g.integers(0, 0, heads, self.architecture.dimensions.head_dim))
        return g.emit("Transpose", split, perm=[0, 2, 1, 3])

    def _norm(self, x: str, gain: str) -> str:
        epsilon = self.architecture.dimensions.rms_eps
        return self.graph.emit_many("RmsNorm", x, gain, count=2, epsilon=epsilon)[0]

    def _linear(self, x: str, name: str) -> str:
        g = self.graph
        y = g.emit("FrozenLinear", x, matrix=name)
        projection = name.rsplit(".", 1)[1]
        if self.architecture.family.attention_bias and projection in ("q_proj", "k_proj", "v_proj"):
            y = g.emit("Add", y, f"{name}.bias")
        if projection in self.lora_targets:
            inner = g.emit("Mul", g.emit("Linear", x, f"{name}.lora_a"), "lora_scale")
            y = g.emit("Add", y, g.emit("Linear", inner, f"{name}.lora_b"))
        return y
