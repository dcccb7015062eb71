"""The parts of a comparison."""
