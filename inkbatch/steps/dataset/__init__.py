"""build-dataset."""
