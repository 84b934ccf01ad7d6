"""A whole Connection of either side: `server`, `client`, and `frames` for both.

The first byte of an input says how the session stands (Setting), the second how the stream is cut,
the rest is the stream that the peer sends. `server` and `client` change bytes blindly, which tries
what stands before the checksums; `frames` seals what it changed, which tries all behind them.
"""

from __future__ import annotations

import random as random_module
from functools import partial
from typing import TYPE_CHECKING

from tests.fuzz.frames import mutate_frames, seal, split
from tests.fuzz.targets.receiving import WAYS, Setting, check, role_of
from tests.fuzz.targets.target import Target
from tests.fuzz.vectors import vectors
from uringd.wire import HEADER_BYTES, FrameType, Role

if TYPE_CHECKING:
    from tests.fuzz.frames import Blind
    from tests.fuzz.vectors import Vector

HEAD_BYTES = 2
SESSION_BYTES_MAX = 1536
"""A dozen frames: longer streams are slower and find no more."""
ALL_SETTINGS = sum(Setting)


def run(data: bytes, role: Role | None = None) -> None:
    """Cut the stream as its second byte says; a role that is given goes before Setting's."""
    if len(data) < HEAD_BYTES:
        return
    setting = Setting(data[0] & ALL_SETTINGS)
    check(role or role_of(setting), setting, data[1], data[HEAD_BYTES:])


def replay(data: bytes, role: Role | None = None) -> None:
    """Cut the stream in every way."""
    run(data, role)
    for cut in range(len(WAYS) + 1):
        run(data[:1] + bytes([cut]) + data[HEAD_BYTES:], role)


def mutate(data: bytes, size_max: int, seed: int, blind: Blind) -> bytes:
    """Change the frames, and sometimes how the session stands when they come."""
    random = random_module.Random(seed)
    head = bytearray(data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0"))
    stream = data[HEAD_BYTES:]
    head[1] = random.randrange(256)
    if not random.randrange(8):
        head[0] ^= random.choice((Setting.ANSWER, Setting.CLOSING, Setting.END))
    if not random.randrange(64):
        head[0] ^= random.choice((Setting.OPEN, Setting.CLIENT))
    if head[0] & Setting.OPEN and random.randrange(4):
        # HELLO has its place elsewhere, and here it ends the session before anything is tried.
        stream = b"".join(part for part in split(stream) if part[5:6] != bytes([FrameType.HELLO]))
    from_server = bool(head[0] & Setting.CLIENT)
    room = size_max - HEAD_BYTES
    return bytes(head) + mutate_frames(stream, room, seed, blind, from_server=from_server)


def seeds(roles: tuple[Role, ...], *, say_role: bool) -> dict[str, bytes]:
    """Make of each vector, where it is the role's peer that sends: its frame, and all up to it."""
    by_name = {vector.name: vector for vector in vectors()}
    found = {}
    for vector in vectors():
        role = Role.CLIENT if vector.from_server else Role.SERVER
        if role not in roles:
            continue
        setting = Setting.CLIENT if say_role and role is Role.CLIENT else Setting.NONE
        if vector.ends:
            setting |= Setting.END
        before = [by_name[name] for name in vector.after]
        frames = [_seed_frame(v) for v in [*before, vector] if v.from_server == vector.from_server]
        found[f"{vector.name}-session"] = bytes([setting | Setting.ANSWER, 3]) + b"".join(frames)
        if before:
            found[vector.name] = bytes([setting | Setting.OPEN, 3]) + frames[-1]
    return found


def _seed_frame(vector: Vector) -> bytes:
    """Return a vector's frame; a reply that is whole gets the cookie that `opened` asked with."""
    frame = bytearray(vector.frame)
    is_reply = vector.from_server and len(frame) >= HEADER_BYTES and frame[6] == 1
    if not is_reply or seal([bytearray(frame)]) != vector.frame:
        return vector.frame
    frame[8:16] = frame[5].to_bytes(8, "little")
    return seal([frame])


SERVER = Target(
    "server",
    partial(run, role=Role.SERVER),
    partial(seeds, (Role.SERVER,), say_role=False),
    partial(replay, role=Role.SERVER),
    bytes_max=SESSION_BYTES_MAX,
)
CLIENT = Target(
    "client",
    partial(run, role=Role.CLIENT),
    partial(seeds, (Role.CLIENT,), say_role=False),
    partial(replay, role=Role.CLIENT),
    bytes_max=SESSION_BYTES_MAX,
)
FRAMES = Target(
    "frames",
    run,
    partial(seeds, (Role.SERVER, Role.CLIENT), say_role=True),
    replay,
    mutate,
    SESSION_BYTES_MAX,
)
