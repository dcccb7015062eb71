"""How good it is; takes predictions, never methods."""
