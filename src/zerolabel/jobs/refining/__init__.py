"""Parts of the job that refines the masks of a run by a student."""
