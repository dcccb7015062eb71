"""The parts of looking into one image."""
