"""Pictures: PNG, plots, previews, exports, run lengths."""
