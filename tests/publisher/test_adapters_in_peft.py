"""An exported adapter in stock peft, on a model that transformers wrote: the logits of the product's own engine.

Everything is exported as `edge-client adapter export --format peft` does it. Weights are float16 on both sides, so the
engine's decode graph computes in float32 and nothing but the last bits may differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_client.engines.onnx_engine import OnnxEngine
from edge_client.engines.sessions import RuntimeSettings, layout_for
from nightshift.packages.importing import Wishes, import_path
from nightshift.protocol.adapters import AdapterLayout, Tensors, initialise
from nightshift.protocol.adapters.formats import to_peft
from tests.support.hugging_face import ROWS, write_byte_level_tokenizer

pytestmark = [
    pytest.mark.publisher,
    # peft 0.21 reads an attribute that transformers 5.2 renamed; nothing of ours does.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

torch = pytest.importorskip("torch", reason="needs the publisher extra: pip install 'nightshift[publisher]'")
transformers = pytest.importorskip(
    "transformers", reason="needs the publisher extra: pip install 'nightshift[publisher]'"
)
peft = pytest.importorskip("peft", reason="needs the publisher extra: pip install 'nightshift[publisher]'")

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": ROWS,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
IDS = np.random.default_rng(3).integers(0, 600, 40)


def write_model(folder: Path, kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(**SHAPE)
    torch.manual_seed(7)
    getattr(transformers, f"{kind}ForCausalLM")(config).to(torch.float16).save_pretrained(folder)
    write_byte_level_tokenizer(folder)


def loud_adapter(layout: AdapterLayout) -> Tensors:
    """An adapter that changes every logit: B is not zero as in a fresh one."""
    random = np.random.default_rng(5)
    fresh = initialise(layout, bytes(32)).items()
    return {name: tensor + 0.2 * random.standard_normal(tensor.shape).astype(np.float32) for name, tensor in fresh}


@pytest.mark.parametrize("targets", [None, ("q_proj", "v_proj")])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3"])
def test_an_exported_adapter_gives_the_same_logits_in_peft(
    tmp_path: Path, kind: str, targets: tuple[str, ...] | None
) -> None:
    write_model(tmp_path / "folder", kind)
    package = import_path(tmp_path / "folder", tmp_path / "package", Wishes("F16"), say=lambda _: None)
    every = layout_for(package.manifest, rank=4, alpha=12)
    chosen = tuple(target for target in every.targets if targets is None or target.name in targets)
    layout = AdapterLayout(layers=every.layers, targets=chosen, rank=4, alpha=12)
    adapter = loud_adapter(layout)
    (tmp_path / "exported").mkdir()
    for name, content in to_peft(adapter, layout, base_model=str(tmp_path / "folder")).items():
        (tmp_path / "exported" / name).write_bytes(content)

    base = getattr(transformers, f"{kind}ForCausalLM").from_pretrained(tmp_path / "folder", dtype=torch.float32)
    ids = torch.from_numpy(IDS[None])
    with torch.no_grad():
        without = base(ids).logits[0].numpy()
        theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "exported")).eval()(ids).logits[0].numpy()
    with OnnxEngine(package, RuntimeSettings(threads=1)) as engine:
        engine.set_adapter(adapter, layout)
        ours = engine.logits(IDS.tolist())
    assert np.abs(theirs - without).max() > 1  # peft found every tensor and it did something
    np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()
