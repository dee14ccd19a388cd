"""Speed and memory, each figure beside its floor. See README.md beside this file."""
