"""Scoring a backbone by what can be read from its features."""
