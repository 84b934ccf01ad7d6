"""Generated from protos/uringd/v1 by protos/generate.py: do not edit."""
