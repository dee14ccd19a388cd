"""Places: local folders, S3, HTTP, memory; atomic writes, listings, counters."""
