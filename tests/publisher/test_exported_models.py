"""Other architectures through optimum: for inference only, and the same numbers as transformers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightshift.packages.importing import Wishes
from nightshift.protocol.errors import IncompatibleError, UsageError
from nightshift.protocol.manifest import Licence, Scheme, Uses
from tests.support.hugging_face import ROWS, TEMPLATE, write_byte_level_tokenizer, write_folder

pytestmark = pytest.mark.publisher

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": (
        "GPTNeoX",
        {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96},
    ),
    "phi": (
        "Phi",
        {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96},
    ),
}


def silent(_: str) -> None:
    """Say nothing."""


def written_by_transformers(folder: Path, kind: str) -> Any:
    torch = pytest.importorskip("torch", reason="needs the publisher extra (torch)")
    transformers = pytest.importorskip("transformers", reason="needs the publisher extra (transformers)")
    name, shape = SHAPES[kind]
    torch.manual_seed(5)
    special = {"bos_token_id": 0, "eos_token_id": 2}
    config = getattr(transformers, f"{name}Config")(vocab_size=ROWS, initializer_range=0.2, **shape, **special)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    write_byte_level_tokenizer(folder)
    return model


@pytest.mark.parametrize("kind", list(SHAPES))
def test_an_exported_model_computes_what_transformers_computes(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("optimum", reason="needs the publisher extra (optimum)")
    import torch

    from coordinator.models.exported import export_folder
    from edge_client.data.tokens import TokenExample
    from edge_client.engines.onnx_engine import OnnxEngine
    from edge_client.engines.sampling import SamplingSettings

    model = written_by_transformers(tmp_path / "folder", kind)
    package = export_folder(tmp_path / "folder", tmp_path / "package", Wishes(licence=Licence("MIT")), say=silent)
    assert (package.manifest.uses, package.manifest.quantisation.scheme) == (Uses.ONNX_RUNTIME, Scheme.F32)
    assert package.manifest.dimensions.family == kind
    assert (package.manifest.tokenizer.eos, package.manifest.chat_template) == (2, TEMPLATE)  # <|im_end|>
    with pytest.raises(IncompatibleError, match="inference through ONNX Runtime only"):
        package.manifest.require_training()

    ids = np.random.default_rng(1).integers(3, 600, 40)
    engine = OnnxEngine(package)
    (losses,) = engine.token_losses([TokenExample(ids.astype(np.int64), np.ones(40, bool))])
    with torch.no_grad():
        logits = model(torch.from_numpy(ids[None, :-1])).logits[0]
        expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[1:]), reduction="none").numpy()
    np.testing.assert_allclose(losses[-39:], expected, atol=1e-4)

    # One token after another, with the cache: the likeliest each time, as transformers picks them.
    prompt = ids[:7].tolist()
    chosen = list(engine.generate(prompt, SamplingSettings(max_tokens=12)))
    sequence = torch.tensor([prompt])
    for token in chosen:
        with torch.no_grad():
            scores = model(sequence).logits[0, -1]
        assert scores[token] >= scores.max() - 1e-3
        sequence = torch.cat([sequence, torch.tensor([[token]])], dim=1)
    assert len(chosen) > 1
    # The second question begins like the first: what is in the cache already is not run again.
    assert list(engine.generate(prompt, SamplingSettings(max_tokens=12))) == chosen


def test_a_quantisation_is_not_promised(tmp_path: Path) -> None:
    from coordinator.models.exported import export_folder

    folder = write_folder(tmp_path / "folder", config={"model_type": "gpt2"})
    with pytest.raises(IncompatibleError, match="float32 package for inference only, not Q4_0"):
        export_folder(folder, tmp_path / "package", Wishes("Q4_0"), say=silent)


def test_without_optimum_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from coordinator.models.exported import export_folder

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optimum" else found(name))
    folder = write_folder(tmp_path / "folder", config={"model_type": "gpt2"})
    with pytest.raises(UsageError, match=r"architecture 'gpt2'.*nightshift\[publisher\]"):
        export_folder(folder, tmp_path / "package", Wishes(), say=silent)
