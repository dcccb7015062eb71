"""Tensor mathematics: no files, no weights, no state."""
