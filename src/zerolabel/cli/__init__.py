"""Parse, call a job, print; one file per command."""
