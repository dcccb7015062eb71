"""Parts of the job that names categories."""
