"""The harness of `make bench`: one idea a file, one process a measurement."""
