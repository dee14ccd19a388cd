"""Rendering: layers around a surface mesh, sampled from the volume of a whole scroll. No torch, no output files."""
