"""Model packages: built from GGUF with numpy and onnx, read and verified with neither."""
