"""Parts of the job granularity: whose directory it is, and its page."""
