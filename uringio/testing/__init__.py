"""Shipped for tests: a ring that is simulated, with the same surface as the real ones."""
