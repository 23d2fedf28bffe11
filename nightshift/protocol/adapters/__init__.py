"""LoRA adapters as vectors and as files."""
