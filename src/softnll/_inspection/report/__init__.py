"""Pages about the scores of a classifier: one file each, which fetches nothing."""
