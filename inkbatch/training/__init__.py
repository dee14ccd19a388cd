"""Training: data, augmentation, losses, the module, checkpoints and the loop that survives a kill at any step."""
