"""The JAX backend: CUDA, ROCm, TPUs and plain processors, through XLA."""
