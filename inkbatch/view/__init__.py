"""What people look at: the viewer in the browser."""
