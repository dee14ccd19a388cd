"""The jobs: each a config, a pure plan, a short run."""
