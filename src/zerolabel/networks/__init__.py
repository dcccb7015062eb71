"""nn.Module definitions only: no files, no downloads."""
