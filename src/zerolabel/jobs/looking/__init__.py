"""The parts of the attention viewer."""
