"""Datasets: index, samples, splits, packing, data card."""
