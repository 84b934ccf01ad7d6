"""What a seed decides before anything runs: sizes, clients, what goes wrong and how often."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field

from uringio.lowlevel import Opcode
from uringio.testing import Fault

KILLS = ("kill", "power")

DISTURBANCES = {"kill": 3, "power": 4, "leave": 1, "cut": 4, "half open": 2, "slow": 2}
"""What is done to the daemon and the network, and how often to each other."""

RESULTS = {
    Opcode.WRITE: [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EBUSY, errno.EINTR],
    Opcode.FSYNC: [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR],
    Opcode.FALLOCATE: [errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.EOPNOTSUPP, errno.EIO],
    Opcode.FTRUNCATE: [errno.EIO, errno.EINTR],
    Opcode.RENAMEAT: [errno.EIO, errno.ENOSPC, errno.EEXIST],
    Opcode.OPENAT2: [errno.EMFILE, errno.EIO, errno.EINTR],
    Opcode.MKDIRAT: [errno.ENOSPC],
    Opcode.UNLINKAT: [errno.EIO],
    Opcode.READ: [errno.EIO],
    Opcode.CLOSE: [errno.EIO],
}


@dataclass(frozen=True)
class Limits:
    """How much of a seed is run: less of it, to find out what it takes to fail."""

    clients: int = 99
    disturbances: int = 99
    faults: bool = True
    calm_network: bool = False

    def arguments(self) -> str:
        """Say it as options of the command."""
        said = []
        if self.clients < Limits.clients:
            said.append(f"CLIENTS={self.clients}")
        if self.disturbances < Limits.disturbances:
            said.append(f"DISTURBANCES={self.disturbances}")
        if not self.faults:
            said.append("FAULTS=no")
        if self.calm_network:
            said.append("NETWORK=calm")
        return " ".join(said)


@dataclass
class Plan:
    """A seed's decisions. Times in seconds of the simulated clock, sizes in bytes."""

    seed: int
    limits: Limits
    faults: list[Fault] = field(init=False)

    def __post_init__(self) -> None:
        chance = random.Random(f"{self.seed}/plan")
        self.direct = chance.random() < 0.5
        with_pages = chance.random() < 0.1
        self.slot_bytes = 128 << 10 if with_pages else chance.choice([4096, 8192, 16384])
        self.slots = chance.randint(2, 6)
        self.credit = chance.randint(1, 4)
        self.checkpoint_s = chance.choice([0.2, 1.0, 5.0])
        self.completion_entries = chance.choice([1, 2, 8, 512])
        self.late = chance.choice([0.0, 0.05, 0.2])
        self.delay_s = 0.0 if self.limits.calm_network else chance.choice([0.0, 0.001, 0.05])
        self.damage = 0.0 if self.limits.calm_network else chance.choice([0.0, 0.0, 0.01])
        self.thread_s = chance.choice([0.0, 0.0, 0.01, 0.2])
        self.catalog_fails = chance.choice([0.0, 0.0, 0.0, 0.05])
        self.clients = min(chance.randint(1, 4), self.limits.clients)
        self.names = chance.randint(1, 3)
        self.disturbances = self._disturbances(chance)
        self.faults = self._faults(chance)
        if not self.limits.faults:
            self.faults, self.catalog_fails = [], 0.0

    def _disturbances(self, chance: random.Random) -> list[str]:
        kinds, weights = list(DISTURBANCES), list(DISTURBANCES.values())
        count = chance.choice([0, 1, 2, 3, 4, 6])
        return chance.choices(kinds, weights, k=count)[: self.limits.disturbances]

    @staticmethod
    def _faults(chance: random.Random) -> list[Fault]:
        faults = []
        if chance.random() < 0.4:
            short = chance.choice([1, 511, 512, 4096, 5000])
            faults.append(Fault(Opcode.WRITE, short=short, probability=chance.choice([0.05, 0.5])))
        if chance.random() < 0.1:
            faults.append(Fault(Opcode.READ, short=1000, probability=0.3))
        for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
            opcode = chance.choice([*RESULTS, *[Opcode.FSYNC] * 6, *[Opcode.WRITE] * 4])
            result = -chance.choice(RESULTS[opcode])
            nth = chance.randint(1, 8)
            if chance.random() < 0.3:
                faults.append(Fault(opcode, nth, result=result, probability=0.1))
            else:
                faults.append(Fault(opcode, nth, result=result))
        return faults
