"""Small uploads: whole files in one request, published many at a time. PROTOCOL.md, "PUT".

`intake` takes them from a session, `uploads` gathers those of all sessions into groups, `group`
publishes a group in a worker thread, and `records` brings the receipts into the catalog.
"""
