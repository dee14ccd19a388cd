"""Reading layers, storing arrays."""
