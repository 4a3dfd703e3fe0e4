"""The PyTorch backend: CUDA, ROCm, Apple's GPUs and plain processors."""
