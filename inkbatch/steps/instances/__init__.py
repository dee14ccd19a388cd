"""The job `instances`: from maps to separate objects."""
