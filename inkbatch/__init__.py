"""inkbatch: batch jobs that read ink in X-ray volumes of carbonised Herculaneum scrolls."""

__version__ = "0.1.0"
