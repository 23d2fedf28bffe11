"""Small Hugging Face folders with random weights and tokenizers that were trained on real commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from nightshift.packages.vocabulary import SPLITS
from tests.support.stories import COMMANDS

TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
ROWS = 640
"""Of the embedding: more than the tokenizers have tokens."""

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": ROWS,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def real_texts() -> list[str]:
    """Home-assistant commands."""
    with COMMANDS.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def write_byte_level_tokenizer(folder: Path, pre: str = "qwen2") -> Tokenizer:
    """A byte-level BPE tokenizer that cuts words as llama.cpp's pre-tokeniser of this name does."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    whole = {
        "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)],
        "smollm": [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ],
    }
    steps = whole.get(pre) or [
        *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[pre]),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(real_texts(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": {"content": "<|im_end|>"}, "bos_token": None, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def write_sentencepiece_tokenizer(folder: Path) -> Tokenizer:
    """A BPE tokenizer in the manner of Llama 2: spaces as letters, other characters as bytes."""
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator(real_texts(), trainers.BpeTrainer(vocab_size=600, special_tokens=specials))
    learned = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab=learned["vocab"], merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in specials[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return tokenizer


def random_tensors(config: dict[str, Any] = CONFIG, *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights of a Llama in Hugging Face's names, float32."""
    generator = np.random.default_rng(seed)
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{prefix}self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}self_attn.k_proj.weight": (kv, hidden),
            f"{prefix}self_attn.v_proj.weight": (kv, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}mlp.gate_proj.weight": (ffn, hidden),
            f"{prefix}mlp.up_proj.weight": (ffn, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, ffn),
        }
    shapes["model.norm.weight"] = (hidden,)
    return {
        name: (generator.standard_normal(shape) * (0.1 if len(shape) > 1 else 0.05) + (len(shape) == 1)).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }


def write_folder(folder: Path, *, config: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """A whole folder: config.json, model.safetensors (float32), a byte-level tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = CONFIG | (config or {})
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(random_tensors(settings, seed=seed), folder / "model.safetensors")
    write_byte_level_tokenizer(folder)
    return folder
