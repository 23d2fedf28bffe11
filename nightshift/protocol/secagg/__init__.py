"""One-shot secure aggregation: device, member and opener side by side."""
