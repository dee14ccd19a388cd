"""Labels: cleaning, components, ignore masks, denoising."""
