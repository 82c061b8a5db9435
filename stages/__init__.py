"""The pipeline's code: one script per stage, and beside them one file per idea they share."""
