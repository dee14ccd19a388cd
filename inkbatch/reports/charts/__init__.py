"""Charts: `shapes` describes them, `svg` draws them for report pages, `raster` as PNG files beside a run."""
