"""config.json of a Hugging Face folder: which family, which shape, which rotary frequencies."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from nightshift.protocol.errors import IncompatibleError, MalformedError, UsageError
from nightshift.protocol.manifest import ModelDimensions

JSON_BYTES_MAX: Final = 64 << 20
FAMILY_OF: Final = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""`model_type` -> family of the graphs. SmolLM's folders call themselves llama."""


@dataclass(frozen=True, slots=True)
class FolderConfig:
    """What config.json says.

    Attributes:
        dimensions: the shape.
        rotary_factors: float32 [head_dim / 2] that the rotary frequencies are divided by (Llama 3), or None.
        bos: id of the beginning token; None where it states none.
        eos: id of the ending token; None where it states none.
    """

    dimensions: ModelDimensions
    rotary_factors: NDArray[np.float32] | None
    bos: int | None
    eos: int | None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that anyone may have written.

    Raises:
        UsageError: there is no such file.
        MalformedError: too large, or no JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(JSON_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UsageError(f"{path.parent} has no {path.name}; expected a Hugging Face folder or a GGUF file") from None
    if len(data) > JSON_BYTES_MAX:
        raise MalformedError(f"{path}: more than {JSON_BYTES_MAX >> 20} MiB; expected a small JSON file")
    try:
        value = json.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MalformedError(f"{path}: not UTF-8 JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise MalformedError(f"{path}: expected a JSON object")
    return cast("dict[str, Any]", value)


def model_type(folder: Path) -> str:
    """What the folder calls its architecture."""
    value = read_json(folder / "config.json").get("model_type")
    return value[:40] if isinstance(value, str) else "unknown"


def read_config(folder: Path) -> FolderConfig:
    """Read config.json of one of the known families.

    Raises:
        UsageError: there is none.
        MalformedError: a number is missing or of another kind.
        IncompatibleError: an architecture, bias, activation or rotary scaling that the graphs do not have.
    """
    path = folder / "config.json"
    config = read_json(path)
    kind = model_type(folder)
    if kind not in FAMILY_OF:
        raise IncompatibleError(
            f"{path}: architecture {kind!r}; packages that train are for {', '.join(FAMILY_OF)}. A coordinator with "
            "the publisher extra can export others for inference"
        )
    _refuse_variants(path, config)
    heads, hidden = _whole(path, config, "num_attention_heads"), _whole(path, config, "hidden_size")
    # A sliding window shortens the context to itself, inside which the model is exact.
    context = _whole(path, config, "max_position_embeddings")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    dimensions = ModelDimensions(
        family=FAMILY_OF[kind],
        layers=_whole(path, config, "num_hidden_layers"),
        hidden=hidden,
        ffn=_whole(path, config, "intermediate_size"),
        heads=heads,
        kv_heads=_whole(path, config, "num_key_value_heads", heads),
        head_dim=_whole(path, config, "head_dim", hidden // heads),
        vocabulary=_whole(path, config, "vocab_size"),
        context=min(context, window) if type(window) is int and window > 0 else context,
        rope_theta=_number(path, {**config, **_rotary(config)}, "rope_theta", 10000.0),
        rms_eps=_number(path, config, "rms_norm_eps", 1e-6),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )
    return FolderConfig(
        dimensions, _rotary_factors(path, config, dimensions), _token(config, "bos"), _token(config, "eos")
    )


def _refuse_variants(path: Path, config: dict[str, Any]) -> None:
    if config.get("hidden_act", "silu") != "silu":
        raise IncompatibleError(f"{path}: activation {str(config['hidden_act'])[:20]!r}; the graphs have silu")
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise IncompatibleError(f"{path}: {key} is set; the graphs have no such bias")


def _rotary(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings, wherever this version of transformers keeps them."""
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(config.get(key), dict):
            return cast("dict[str, Any]", config[key])
    return {}


def _rotary_factors(path: Path, config: dict[str, Any], dimensions: ModelDimensions) -> NDArray[np.float32] | None:
    rotary = _rotary(config)
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise IncompatibleError(f"{path}: rotary scaling {str(kind)[:20]!r} is not supported; use a model without it")
    factor = _number(path, rotary, "factor")
    low, high = _number(path, rotary, "low_freq_factor"), _number(path, rotary, "high_freq_factor")
    original = _number(path, rotary, "original_max_position_embeddings")
    if not (factor > 0 and 0 < low < high and original > 0):
        raise MalformedError(f"{path}: rotary scaling with factors that make no sense")
    # transformers, modeling_rope_utils.py, _compute_llama3_parameters: slow frequencies are divided by the
    # factor, fast ones kept, those between blended.
    exponents = np.arange(0, dimensions.head_dim, 2, dtype=np.float64) / dimensions.head_dim
    turns = original * dimensions.rope_theta**-exponents / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)


def _token(config: dict[str, Any], name: str) -> int | None:
    """A special token's id; the first where there are several."""
    value = config.get(f"{name}_token_id")
    if isinstance(value, list) and value:
        value = value[0]
    return value if type(value) is int and value >= 0 else None


def _whole(path: Path, config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or value < 1:
        raise MalformedError(f"{path}: {key} should be a positive whole number, is {str(value)[:40]}")
    return value


def _number(path: Path, config: dict[str, Any], key: str, default: float | None = None) -> float:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MalformedError(f"{path}: {key} should be a number, is {str(value)[:40]}")
    return float(value)
