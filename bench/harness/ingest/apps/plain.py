"""The least that a server can do: recv, os.write, fsync, answer; a thread for each connection.

Run as a program: `plain.py ROOT PORT`. It takes HTTP PUT from our own load generator and believes
it: what is asked here is what the system calls cost, not what a server has to check.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading

PIECE_BYTES = 1 << 20
HEAD_BYTES_MAX = 1 << 16
ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


def serve(sock: socket.socket, root: str) -> None:
    """Take uploads from one connection until it ends."""
    memory = memoryview(bytearray(PIECE_BYTES))
    with sock:
        while take(sock, root, memory):
            sock.sendall(ANSWER)


def take(sock: socket.socket, root: str, memory: memoryview) -> bool:
    """Take one upload; its bytes and size survive a power cut on return, its name may not."""
    said = b""
    while b"\r\n\r\n" not in said:
        piece = sock.recv(HEAD_BYTES_MAX)
        if not piece:
            return False
        said += piece
    head, _, body = said.partition(b"\r\n\r\n")
    found = re.match(rb"PUT /([\w.-]+) .*content-length: *(\d+)", head, re.DOTALL | re.IGNORECASE)
    assert found is not None
    left = int(found[2]) - len(body)
    fd = os.open(
        os.path.join(root, found[1].decode()), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644
    )
    try:
        write_all(fd, memoryview(body))
        while left:
            length = sock.recv_into(memory, min(left, len(memory)))
            if not length:
                return False
            write_all(fd, memory[:length])
            left -= length
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def write_all(fd: int, piece: memoryview) -> None:
    """Write all of it."""
    while piece:
        piece = piece[os.write(fd, piece) :]


def main() -> None:
    """Listen until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    root, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(sock, root), daemon=True).start()


if __name__ == "__main__":
    main()
