"""labels, clean and import-cvat."""
