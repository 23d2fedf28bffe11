"""Where folding and opening run."""
