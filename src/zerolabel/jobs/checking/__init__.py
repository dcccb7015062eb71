"""Parts of the job that looks at the machine; each check imports what it needs, and fails alone."""
