"""Launchers: a chain of array jobs in the words of one engine. They know no model and never meet torch.

Each engine is one file; importing it here registers it.
"""

from inkbatch.launch import aws_batch, docker, kubernetes, local, skypilot, slurm  # noqa: F401
