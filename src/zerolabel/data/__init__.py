"""Where pixels and labels come from."""
