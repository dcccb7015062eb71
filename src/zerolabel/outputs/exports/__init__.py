"""Masks in the formats of annotation tools: one file per format, images streamed through."""
