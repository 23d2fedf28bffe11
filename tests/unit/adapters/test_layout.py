from __future__ import annotations

import numpy as np
import pytest

from nightshift.protocol.adapters import AdapterLayout, FormatError, LayoutError, Method, Side, Target
from nightshift.protocol.errors import MalformedError

LAYOUT = AdapterLayout(layers=2, targets=(Target("q_proj", 6, 4), Target("down_proj", 5, 6)), rank=3, alpha=12)


def counting(layout: AdapterLayout) -> dict[str, np.ndarray]:
    """Every value differs, so a wrong order cannot go unnoticed."""
    values = iter(range(1_000_000))
    return {
        name: np.array([next(values) for _ in range(rows * columns)], np.float32).reshape(rows, columns)
        for name, (rows, columns) in layout.shapes().items()
    }


def test_names_and_shapes_come_layer_by_layer_a_before_b() -> None:
    assert list(LAYOUT.shapes().items()) == [
        ("layers.0.q_proj.lora_a", (3, 6)),
        ("layers.0.q_proj.lora_b", (4, 3)),
        ("layers.0.down_proj.lora_a", (3, 5)),
        ("layers.0.down_proj.lora_b", (6, 3)),
        ("layers.1.q_proj.lora_a", (3, 6)),
        ("layers.1.q_proj.lora_b", (4, 3)),
        ("layers.1.down_proj.lora_a", (3, 5)),
        ("layers.1.down_proj.lora_b", (6, 3)),
    ]
    assert LAYOUT.scale == 4.0


def test_the_vector_is_the_tensors_of_the_side_one_after_the_other() -> None:
    tensors = counting(LAYOUT)
    both = LAYOUT.to_vector(tensors, Side.BOTH)
    np.testing.assert_array_equal(both, np.arange(len(both), dtype=np.float32))
    only_b = [tensors[name].ravel() for name in LAYOUT.shapes() if name.endswith("lora_b")]
    np.testing.assert_array_equal(LAYOUT.to_vector(tensors, Side.B), np.concatenate(only_b))


@pytest.mark.parametrize("side", list(Side))
def test_vector_and_tensors_are_two_forms_of_one_thing(side: Side) -> None:
    tensors = counting(LAYOUT)
    vector = LAYOUT.to_vector(tensors, side)
    assert vector.shape == (LAYOUT.vector_length(side),)
    back = LAYOUT.from_vector(vector, side)
    assert tuple(back) == LAYOUT.trained_names(side)
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name])
        assert np.shares_memory(tensor, vector)


def test_sides_partition_the_adapter() -> None:
    a, b = LAYOUT.trained_names(Side.A), LAYOUT.trained_names(Side.B)
    assert set(a) & set(b) == set()
    assert set(a) | set(b) == set(LAYOUT.trained_names(Side.BOTH))
    assert LAYOUT.vector_length(Side.A) + LAYOUT.vector_length(Side.B) == LAYOUT.vector_length(Side.BOTH)


def test_a_delta_moves_its_side_and_leaves_the_other() -> None:
    before = counting(LAYOUT)
    delta = np.full(LAYOUT.vector_length(Side.A), 0.5, np.float32)
    after = LAYOUT.with_delta(before, delta, Side.A)
    np.testing.assert_array_equal(LAYOUT.delta(after, before, Side.A), delta)
    np.testing.assert_array_equal(LAYOUT.delta(after, before, Side.B), 0)
    np.testing.assert_array_equal(before["layers.0.q_proj.lora_a"], counting(LAYOUT)["layers.0.q_proj.lora_a"])


def test_llama_shapes() -> None:
    layout = AdapterLayout.for_llama(
        layers=1, hidden=8, ffn=20, heads=4, kv_heads=2, head_dim=6, rank=2, alpha=4, targets=("up_proj", "k_proj")
    )
    assert layout.targets == (Target("k_proj", 8, 12), Target("up_proj", 8, 20))
    full = AdapterLayout.for_llama(layers=1, hidden=8, ffn=20, heads=4, kv_heads=2, head_dim=6, rank=2, alpha=4)
    shapes = {target.name: (target.out_features, target.in_features) for target in full.targets}
    assert shapes == {
        "q_proj": (24, 8),
        "k_proj": (12, 8),
        "v_proj": (12, 8),
        "o_proj": (8, 24),
        "gate_proj": (20, 8),
        "up_proj": (20, 8),
        "down_proj": (8, 20),
    }


Q = (Target("q_proj", 6, 4),)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"layers": 0}, "layers"),
        ({"layers": 10**9}, "layers"),
        ({"layers": 2.0}, "layers"),
        ({"layers": True}, "layers"),
        ({"rank": -1}, "rank"),
        ({"rank": 5}, "rank"),  # more than the 4 rows of q
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": "16"}, "alpha"),
        ({"targets": ()}, "targets"),
        ({"targets": (Target("embed", 6, 4),)}, "targets"),
        ({"targets": (*Q, *Q)}, "targets"),
        ({"targets": (Target("v_proj", 6, 4), *Q)}, "targets"),
        ({"targets": (Target("q_proj", 1 << 40, 4),)}, "in_features"),
        ({"targets": (Target("q_proj", 6, "4"),)}, "out_features"),
        ({"layers": 256, "rank": 100, "targets": (Target("q_proj", 1 << 17, 1 << 17),)}, "parameters"),
    ],
)
def test_a_hostile_layout_is_refused_before_anything_is_allocated(fields: dict[str, object], word: str) -> None:
    values: dict[str, object] = {"layers": 2, "targets": Q, "rank": 3, "alpha": 16.0}
    with pytest.raises(LayoutError, match=word):
        AdapterLayout(**{**values, **fields})  # type: ignore[arg-type]  # hostile on purpose


def test_tensors_that_do_not_fit_are_named() -> None:
    tensors = counting(LAYOUT)
    name = "layers.1.q_proj.lora_b"
    without = {key: value for key, value in tensors.items() if key != name}
    for broken, word in (
        (without, "missing"),
        ({**tensors, "layers.9.q_proj.lora_a": tensors[name]}, "unexpected"),
        ({**tensors, name: tensors[name].T}, "must be float32"),
        ({**tensors, name: tensors[name].astype(np.float64)}, "must be float32"),
        ({**tensors, name: np.full_like(tensors[name], np.nan)}, "not finite"),
    ):
        with pytest.raises(FormatError, match=word):
            LAYOUT.check(broken)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(5, np.float32),
        np.zeros(LAYOUT.vector_length(Side.B), np.float64),
        np.zeros(2 * LAYOUT.vector_length(Side.B), np.float32)[::2],
        np.full(LAYOUT.vector_length(Side.B), np.inf, np.float32),
    ],
)
def test_a_vector_that_does_not_fit_is_refused(vector: np.ndarray) -> None:
    with pytest.raises(FormatError, match="vector"):
        LAYOUT.from_vector(vector, Side.B)


def test_methods_choose_the_side_of_a_round() -> None:
    assert [Method("ffa").side_for_round(index) for index in range(3)] == [Side.B] * 3
    assert [Method("alternate").side_for_round(index) for index in range(4)] == [Side.B, Side.A, Side.B, Side.A]
    assert [Method("fedavg").side_for_round(index) for index in range(2)] == [Side.BOTH] * 2
    with pytest.raises(LayoutError):
        Method.FFA.side_for_round(-1)


def test_adapter_errors_are_malformed_input_on_the_wire() -> None:
    assert issubclass(LayoutError, MalformedError)
    assert issubclass(FormatError, MalformedError)
    assert FormatError.reason == MalformedError.reason
