"""Faults of a surface that its layers show by themselves, before a network reads them."""
