"""Segments, catalogs, phantoms, scores."""
