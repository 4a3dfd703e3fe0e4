"""MLX on Apple silicon; its CPU build serves Linux."""
