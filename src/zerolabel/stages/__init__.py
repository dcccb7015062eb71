"""The verbs that several methods share."""
