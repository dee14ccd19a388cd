"""rerun and diff."""
