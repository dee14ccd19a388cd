"""report: pages of finished runs."""
