"""Segments: the catalog and prepared segments under ROOT."""
