"""torch + peft doing the same training steps: the peer of `training.py`.

Runs in an environment of its own, with torch, transformers and peft and without Nightshift. The
model is a Hugging Face one of the same shape with random weights; `--prepare` writes it, so that
a measured process only maps it, as it would map a downloaded one. Attention is torch's fused one
(sdpa), the optimiser torch.optim.AdamW over the adapter, which is trained on both sides.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

# By name: types are checked with and without these two installed.
peft: Any = importlib.import_module("peft")
transformers: Any = importlib.import_module("transformers")

FAMILIES = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def configuration(dimensions: dict[str, float]) -> Any:
    """The shape, from the fields of `ModelDimensions`, as transformers describes it."""
    return FAMILIES[str(dimensions["family"])](
        vocab_size=dimensions["vocabulary"],
        hidden_size=dimensions["hidden"],
        intermediate_size=dimensions["ffn"],
        num_hidden_layers=dimensions["layers"],
        num_attention_heads=dimensions["heads"],
        num_key_value_heads=dimensions["kv_heads"],
        head_dim=dimensions["head_dim"],
        max_position_embeddings=dimensions["context"],
        rms_norm_eps=dimensions["rms_eps"],
        tie_word_embeddings=dimensions["tied_embeddings"],
    )


def prepare(dimensions: dict[str, float], precision: torch.dtype, folder: Path) -> None:
    """Write the model with random weights."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(configuration(dimensions), dtype=precision)
    model.save_pretrained(folder)


def load(arguments: argparse.Namespace) -> Any:
    """The model with a LoRA adapter, ready to train."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.folder, dtype=PRECISIONS[arguments.precision], attn_implementation="sdpa"
    )
    model.config.use_cache = False
    adapter = peft.LoraConfig(
        r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules=arguments.targets.split(","), lora_dropout=0.0
    )
    model = peft.get_peft_model(model, adapter)
    if arguments.checkpointing:
        # As the documentation says: gradients have to reach a frozen embedding's output for it to work.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a new process starts at what its parent held
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20


def main() -> None:
    """Prepare or measure; a measurement prints one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--precision", choices=list(PRECISIONS), required=True)
    parser.add_argument("--prepare", type=json.loads, help="dimensions; write the model and end")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--length", type=int)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--targets")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare, PRECISIONS[arguments.precision], arguments.folder)
        return
    torch.set_num_threads(arguments.threads)
    before = time.perf_counter()
    model = load(arguments)
    load_s = time.perf_counter() - before
    optimiser = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-4)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (arguments.batch, arguments.length), generator=generator)
    cpu_s, wall_s, loss = [], [], torch.zeros(())
    for _ in range(arguments.steps + 1):
        cpu, wall = time.process_time(), time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        cpu_s.append(time.process_time() - cpu)
        wall_s.append(time.perf_counter() - wall)
    print(
        json.dumps(
            {
                "peak_rss_mb": peak_rss_mb(),
                "cpu_s_per_step": statistics.median(cpu_s[1:]),  # the first step warms up
                "wall_s_per_step": statistics.median(wall_s[1:]),
                "load_s": load_s,
                "loss": loss.item(),
                "trained_values": sum(value.numel() for value in model.parameters() if value.requires_grad),
                "torch": torch.__version__,
                "peft": peft.__version__,
                "transformers": transformers.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
