"""The demo: real nights on real text, with real processes (run it as `scripts/demo`)."""
