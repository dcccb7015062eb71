"""Cells, and what becomes of them."""
