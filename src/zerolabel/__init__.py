"""Zerolabel: semantic segmentation with zero labels."""

__version__ = "0.1.0"
