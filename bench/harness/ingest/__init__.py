"""Uploads to servers: uringd beside others, under the same load, durable or not said for each."""
