"""The parts of scoring masks."""
