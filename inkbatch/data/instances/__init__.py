"""Separate objects from a map: proposals, watershed, selection, tables, outlines and scores."""
