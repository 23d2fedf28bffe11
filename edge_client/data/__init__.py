"""From private text to token batches."""
