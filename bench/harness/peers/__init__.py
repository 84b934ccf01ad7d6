"""Other libraries from PyPI that write files, each in the best way its own interface offers."""
