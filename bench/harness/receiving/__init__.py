"""Ways to receive chunks, measured by bench/receive.py."""
