"""Contract suites and fixtures for our tests and for those who extend inkbatch."""
