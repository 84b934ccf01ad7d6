# ruff: noqa: INP001, T201 -- a script beside what it writes, and printing is its trade
"""Docker's default seccomp profile plus the three calls of io_uring, as a table.

    python3 docker/seccomp.py             the profile as Docker and Podman read it, on stdout
    python3 docker/seccomp.py --write     the same, into seccomp.json
    python3 docker/seccomp.py --check     exit 1 when seccomp.json is not what the table says
    python3 docker/seccomp.py --oci ARCH  for runtimes that know no conditions (see below)

A seccomp profile here is an allow list: a system call that no rule names fails with EPERM. Docker
took io_uring_setup, io_uring_enter and io_uring_register off its list in Engine 25; containerd and
Kubernetes' RuntimeDefault did the same. The rules below are Docker's default as of moby/profiles
seccomp v0.2.3 (Engine 29.5) and those three names, nothing else: what is written here must not
become a second opinion about what a container may do.

Docker's file format has what the OCI runtime specification lacks: `archMap`, and conditions
(`includes`, `excludes`) on the container's capabilities, its architecture and the kernel, which
the engine decides before it hands the rules to the runtime. containerd's Kubernetes plugin reads a
profile as plain OCI and drops every condition in silence: `mount` would be allowed to everybody.
`--oci` decides them beforehand, for a container without capabilities, which is what uringd needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).with_name("seccomp.json")

EPERM = 1
ENOSYS = 38

AF_ALG = 38  # the kernel's crypto API: a history of privilege escalations, no use in a container
AF_VSOCK = 40  # sockets to the hypervisor, which no network namespace holds back

# Every CLONE_NEW* flag: a new mount, cgroup, uts, ipc, user, pid or network namespace.
CLONE_NAMESPACES = 0x7E020000

# The engine's name of an architecture, libseccomp's, and those whose binaries the same kernel runs.
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "amd64": ("X86_64", "X86", "X32"),
    "arm64": ("AARCH64", "ARM"),
    "mips64": ("MIPS64", "MIPS", "MIPS64N32"),
    "mips64n32": ("MIPS64N32", "MIPS", "MIPS64"),
    "mipsel64": ("MIPSEL64", "MIPSEL", "MIPSEL64N32"),
    "mips3l64n32": ("MIPSEL64N32", "MIPSEL", "MIPSEL64"),
    "s390x": ("S390X", "S390"),
    "riscv64": ("RISCV64",),
    "loong64": ("LOONGARCH64",),
}


@dataclass(frozen=True)
class Argument:
    """A condition on one argument of a call; with MASKED_EQ, `argument & value == masked`."""

    index: int
    comparison: str  # LT, EQ, GT, MASKED_EQ
    value: int
    masked: int = 0

    def document(self) -> dict[str, Any]:
        """Give the condition as the profile writes it."""
        return {
            "index": self.index,
            "value": self.value,
            "valueTwo": self.masked,
            "op": f"SCMP_CMP_{self.comparison}",
        }


@dataclass(frozen=True)
class Condition:
    """When a rule counts at all: each field that is not empty must hold (capabilities: all)."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    kernel: str = ""

    def document(self) -> dict[str, Any]:
        """Give the condition as the profile writes it, empty fields left out."""
        stated = {"caps": list(self.caps), "arches": list(self.arches), "minKernel": self.kernel}
        return {name: value for name, value in stated.items() if value}


@dataclass(frozen=True)
class Rule:
    """Some calls, what becomes of them, and when."""

    purpose: str
    calls: str
    argument: Argument | None = None
    includes: Condition = field(default_factory=Condition)
    excludes: Condition = field(default_factory=Condition)
    errno: int | None = None  # refused with it; without one the calls are allowed

    def runtime_document(self) -> dict[str, Any]:
        """Give the part that the OCI runtime specification knows."""
        refused = self.errno is not None
        return {
            "names": sorted(self.calls.split()),
            "action": "SCMP_ACT_ERRNO" if refused else "SCMP_ACT_ALLOW",
            **({"errnoRet": self.errno} if refused else {}),
            **({"args": [self.argument.document()]} if self.argument else {}),
        }

    def document(self) -> dict[str, Any]:
        """Give the rule in Docker's format: purpose and conditions as well."""
        conditions = {
            "includes": self.includes.document(),
            "excludes": self.excludes.document(),
        }
        return {
            "comment": self.purpose,
            **self.runtime_document(),
            **{name: value for name, value in conditions.items() if value},
        }

    def holds_without_capabilities(self, architecture: str) -> bool:
        """Decide the conditions; the kernel's is met by every kernel that has io_uring (5.1)."""
        includes, excludes = self.includes, self.excludes
        return (
            not includes.caps
            and (not includes.arches or architecture in includes.arches)
            and architecture not in excludes.arches
        )


# The one rule that is ours.
IO_URING = Rule(
    "io_uring: added to Docker's default", "io_uring_enter io_uring_register io_uring_setup"
)

# What every container may call. Names of all architectures stand together: a runtime leaves out
# those that the machine's own does not have.
ALWAYS = (
    Rule(
        "open and close files",
        """
        close close_range creat memfd_create memfd_secret name_to_handle_at open openat openat2
        """,
    ),
    Rule(
        "read, write and move data",
        """
        copy_file_range pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readv sendfile
        sendfile64 splice tee vmsplice write writev
        """,
    ),
    Rule(
        "position, size, caching and durability of file data",
        """
        _llseek cachestat fadvise64 fadvise64_64 fallocate fdatasync fsync ftruncate ftruncate64
        lseek readahead sync sync_file_range syncfs truncate truncate64
        """,
    ),
    Rule(
        "metadata of files and file systems",
        """
        access chmod chown chown32 faccessat faccessat2 fchmod fchmodat fchmodat2 fchown fchown32
        fchownat fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat lchown lchown32 listmount
        lstat lstat64 newfstatat stat stat64 statfs statfs64 statmount statx umask utime utimensat
        utimensat_time64 utimes
        """,
    ),
    Rule(
        "extended attributes",
        """
        fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr
        listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
        """,
    ),
    Rule(
        "names and directories",
        """
        chdir fchdir getcwd getdents getdents64 link linkat mkdir mkdirat mknod mknodat readlink
        readlinkat rename renameat renameat2 rmdir symlink symlinkat unlink unlinkat
        """,
    ),
    Rule(
        "descriptors: duplicates, pipes, locks, control",
        """
        dup dup2 dup3 fcntl fcntl64 flock ioctl pipe pipe2
        """,
    ),
    Rule(
        "wait for events of descriptors and of the file system",
        """
        _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
        epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init
        inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64 select
        """,
    ),
    Rule(
        "the older asynchronous input and output",
        """
        io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
        """,
    ),
    Rule(
        "sockets, but for socket() itself",
        """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom
        recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown
        socketcall socketpair
        """,
    ),
    Rule(
        "memory",
        """
        brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect
        mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
        process_mrelease remap_file_pages
        """,
    ),
    Rule(
        "System V and POSIX message queues, semaphores and shared memory",
        """
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
        mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
        semtimedop_time64 shmat shmctl shmdt shmget
        """,
    ),
    Rule(
        "start, end and wait for processes and threads (clone and clone3: further down)",
        """
        execve execveat exit exit_group fork get_robust_list get_thread_area pidfd_open rseq
        set_robust_list set_thread_area set_tid_address vfork wait4 waitid waitpid
        """,
    ),
    Rule(
        "futexes",
        """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
        """,
    ),
    Rule(
        "signals",
        """
        kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask
        rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill tkill
        """,
    ),
    Rule(
        "who a process is; changes are bounded by its capabilities",
        """
        capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
        getpgid getpgrp getpid getppid getresgid getresgid32 getresuid getresuid32 getsid gettid
        getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups
        setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid setresuid32
        setreuid setreuid32 setsid setuid setuid32
        """,
    ),
    Rule(
        "limits, priorities and scheduling",
        """
        getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64
        sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
        sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
        sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority
        setrlimit ugetrlimit
        """,
    ),
    Rule(
        "clocks and timers (setting the clock: further down, by capability)",
        """
        adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
        clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer
        gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun
        timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
        timerfd_gettime64 timerfd_settime timerfd_settime64 times
        """,
    ),
    Rule(
        "give up more rights",
        """
        landlock_add_rule landlock_create_ruleset landlock_restrict_self prctl seccomp
        """,
    ),
    Rule(
        "the machine, and odds and ends",
        """
        getrandom riscv_hwprobe sysinfo uname uretprobe
        """,
    ),
)

# Allowed by what their arguments are. A filter sees numbers, never what a pointer points to.
BY_ARGUMENT = (
    Rule("address families below AF_ALG", "socket", Argument(0, "LT", AF_ALG)),
    Rule("the one between AF_ALG and AF_VSOCK", "socket", Argument(0, "EQ", AF_ALG + 1)),
    Rule("address families above AF_VSOCK", "socket", Argument(0, "GT", AF_VSOCK)),
    Rule("PER_LINUX", "personality", Argument(0, "EQ", 0x0)),
    Rule("PER_LINUX32", "personality", Argument(0, "EQ", 0x8)),
    Rule("UNAME26", "personality", Argument(0, "EQ", 0x20000)),
    Rule("UNAME26 | PER_LINUX32", "personality", Argument(0, "EQ", 0x20008)),
    Rule("ask, change nothing", "personality", Argument(0, "EQ", 0xFFFFFFFF)),
    Rule(
        "threads and processes, no new namespaces",
        "clone",
        Argument(0, "MASKED_EQ", CLONE_NAMESPACES),
        excludes=Condition(caps=("CAP_SYS_ADMIN",), arches=("s390", "s390x")),
    ),
    Rule(
        "the same on s390, where the flags are the second argument",
        "clone",
        Argument(1, "MASKED_EQ", CLONE_NAMESPACES),
        includes=Condition(arches=("s390", "s390x")),
        excludes=Condition(caps=("CAP_SYS_ADMIN",)),
    ),
    Rule(
        "its flags are behind a pointer: say ENOSYS, so that the C library takes clone instead",
        "clone3",
        excludes=Condition(caps=("CAP_SYS_ADMIN",)),
        errno=ENOSYS,
    ),
)


def for_architectures(purpose: str, arches: str, calls: str) -> Rule:
    """Allow calls that only some architectures have, or need."""
    return Rule(purpose, calls, includes=Condition(arches=tuple(arches.split())))


BY_ARCHITECTURE = (
    for_architectures("POWER", "ppc64le", "swapcontext sync_file_range2"),
    for_architectures(
        "Arm",
        "arm arm64",
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    for_architectures("x86: thread-local storage", "amd64 x32", "arch_prctl"),
    for_architectures("x86: segments, for 16-bit programs", "amd64 x32 x86", "modify_ldt"),
    for_architectures(
        "IBM Z", "s390 s390x", "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"
    ),
    for_architectures("RISC-V", "riscv64", "riscv_flush_icache"),
)


def for_capability(capability: str, calls: str) -> Rule:
    """Allow calls that the holder of a capability may make anyway."""
    return Rule(f"with {capability}", calls, includes=Condition(caps=(capability,)))


BY_CAPABILITY = (
    for_capability("CAP_BPF", "bpf"),
    for_capability("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    for_capability("CAP_PERFMON", "perf_event_open"),
    for_capability(
        "CAP_SYS_ADMIN",
        """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
        umount umount2 unshare
        """,
    ),
    for_capability("CAP_SYS_BOOT", "reboot"),
    for_capability("CAP_SYS_CHROOT", "chroot"),
    for_capability("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    for_capability("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    for_capability("CAP_SYS_PACCT", "acct"),
    for_capability(
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    for_capability("CAP_SYS_RAWIO", "ioperm iopl"),
    for_capability("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    for_capability("CAP_SYS_TTY_CONFIG", "vhangup"),
    for_capability("CAP_SYSLOG", "syslog"),
)

BY_KERNEL = (
    Rule(
        "debuggers: before Linux 4.8 a tracer could step around the filter",
        "process_vm_readv process_vm_writev ptrace",
        includes=Condition(kernel="4.8"),
    ),
)

RULES = (IO_URING, *ALWAYS, *BY_ARGUMENT, *BY_ARCHITECTURE, *BY_CAPABILITY, *BY_KERNEL)


def docker_profile() -> dict[str, Any]:
    """Give the profile in Docker's format, conditions included."""
    architectures = [
        {
            "architecture": f"SCMP_ARCH_{native}",
            "subArchitectures": [f"SCMP_ARCH_{other}" for other in others],
        }
        for native, *others in ARCHITECTURES.values()
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "archMap": architectures,
        "syscalls": [rule.document() for rule in RULES],
    }


def oci_profile(architecture: str) -> dict[str, Any]:
    """Give the profile in the OCI format, decided for a container without capabilities."""
    rules = [rule for rule in RULES if rule.holds_without_capabilities(architecture)]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": [f"SCMP_ARCH_{name}" for name in ARCHITECTURES[architecture]],
        "syscalls": [rule.runtime_document() for rule in rules],
    }


def render(profile: dict[str, Any]) -> str:
    """Write a profile out, the same bytes every time."""
    return json.dumps(profile, indent=2) + "\n"


def main() -> int:
    """Print, write or check; the exit code is 1 for a stale file."""
    parser = argparse.ArgumentParser(description="Docker's default seccomp profile plus io_uring")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help=f"write {PROFILE.name}")
    what.add_argument("--check", action="store_true", help=f"exit 1 when {PROFILE.name} is stale")
    what.add_argument(
        "--oci", choices=ARCHITECTURES, metavar="ARCH", help="plain OCI, without capabilities"
    )
    wanted = parser.parse_args()

    if wanted.oci:
        print(render(oci_profile(wanted.oci)), end="")
        return 0
    text = render(docker_profile())
    if wanted.write:
        PROFILE.write_text(text)
        return 0
    if wanted.check:
        if PROFILE.exists() and PROFILE.read_text() == text:
            return 0
        print(f"{PROFILE.name} is stale: run python3 docker/seccomp.py --write", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
