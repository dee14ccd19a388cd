"""phantom, phantoms and vessels."""
