"""export, export-folders and export-rle."""
