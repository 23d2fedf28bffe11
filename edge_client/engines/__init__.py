"""Engines that run a model package: ONNX Runtime and llama.cpp."""
