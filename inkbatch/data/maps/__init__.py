"""Ink maps as data: combining, scoring, truth, bootstrap."""
