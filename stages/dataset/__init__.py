"""Where images come from: the catalogue of datasets, the IDX format, the embedded digits."""
