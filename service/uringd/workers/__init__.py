"""`uringd serve --workers N`: one server of several processes.

    supervisor    ROOT's lock, the listening sockets, the catalog's upkeep; no ring, no client
      worker 1    a ring, a pool, sessions: what a server of one process is
      worker 2    ...

What is shared is on disk (catalog, spool) or the kernel's: the lock on a spool file says which
process has an upload, the accounts are a mapping, the listening sockets are inherited. What is left
is a handful of questions that a worker asks the others (`messages`), when that lock is taken.

An upload is held by one worker, and its lanes with it (`uringd.moving` says why). RESUME of an
upload that another worker holds has it fenced, made durable and closed there, and then opens it.
"""
