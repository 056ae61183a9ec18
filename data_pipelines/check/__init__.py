"""The integrity report over a manifest: what is wrong with a cohort before anything is trained."""
