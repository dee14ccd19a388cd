"""Viewer: a web server for one person, and its page."""
