"""The train-step graph, driven by AdamW in numpy."""
