"""Federated learning played in one process: the device's real training, the plan's real encoding, sums in the clear."""
