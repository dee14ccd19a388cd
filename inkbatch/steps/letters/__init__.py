"""The job `letters`: from a map of ink to letters and lines."""
