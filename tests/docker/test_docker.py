"""docker/: what can be said of an image without building it."""

import ctypes
import errno
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCKER = ROOT / "docker"
GENERATOR = DOCKER / "seccomp.py"
CONFINED = HERE / "confined.py"

IO_URING = ["io_uring_enter", "io_uring_register", "io_uring_setup"]
ENGINE_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # as uname and as Docker say it
IO_URING_SETUP = 425  # the same number on both
LONG = 10  # seconds a child process may take before it counts as stuck


def profile() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DOCKER / "seccomp.json").read_text())
    return loaded


def oci_profile(architecture: str) -> dict[str, Any]:
    command = [sys.executable, str(GENERATOR), "--oci", architecture]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONG)
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def unconditional(rules: list[dict[str, Any]]) -> list[str]:
    """Names that a profile allows whatever the arguments, the capabilities and the machine."""
    return [
        name
        for rule in rules
        if rule["action"] == "SCMP_ACT_ALLOW" and not {"args", "includes", "excludes"} & set(rule)
        for name in rule["names"]
    ]


def instructions(name: str) -> list[str]:
    """All lines of the Dockerfile that start with an instruction, continuations joined."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = text.replace("\\\n", " ")
    return [
        line.split(None, 1)[1] for line in joined.splitlines() if line.split(None, 1)[:1] == [name]
    ]


# --- the seccomp profile ------------------------------------------------------------------------


def test_the_profile_refuses_by_default_and_names_its_architectures() -> None:
    document = profile()
    assert set(document) == {"defaultAction", "defaultErrnoRet", "archMap", "syscalls"}
    assert document["defaultAction"] == "SCMP_ACT_ERRNO"
    assert document["defaultErrnoRet"] == errno.EPERM
    natives = [entry["architecture"] for entry in document["archMap"]]
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"} <= set(natives)
    assert len(natives) == len(set(natives))


def test_every_rule_of_the_profile_has_only_fields_that_docker_reads() -> None:
    fields = {"names", "action", "errnoRet", "args", "comment", "includes", "excludes"}
    conditions = {"caps", "arches", "minKernel"}
    for rule in profile()["syscalls"]:
        assert {"names", "action"} <= set(rule) <= fields
        assert rule["names"], rule
        assert rule["action"] in {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}
        assert ("errnoRet" in rule) == (rule["action"] == "SCMP_ACT_ERRNO")
        assert set(rule.get("includes", {})) | set(rule.get("excludes", {})) <= conditions
        for argument in rule.get("args", []):
            assert set(argument) == {"index", "value", "valueTwo", "op"}


def test_the_three_calls_of_io_uring_are_allowed_once_and_without_a_condition() -> None:
    rules = profile()["syscalls"]
    assert [rule["names"] for rule in rules if set(IO_URING) & set(rule["names"])] == [IO_URING]
    assert set(IO_URING) <= set(unconditional(rules))


def test_no_call_is_both_allowed_to_everybody_and_bound_to_a_condition() -> None:
    rules = profile()["syscalls"]
    always = Counter(unconditional(rules))
    assert [name for name, times in always.items() if times > 1] == []
    named = Counter(name for rule in rules for name in rule["names"])
    assert [name for name in always if named[name] > 1] == []


def test_what_docker_keeps_from_containers_is_not_allowed_to_everybody() -> None:
    kept = (
        "bpf clone3 keyctl mount open_by_handle_at perf_event_open reboot setns unshare userfaultfd"
    )
    assert set(kept.split()) & set(unconditional(profile()["syscalls"])) == set()


def test_the_profile_on_disk_is_what_the_table_says() -> None:
    command = [sys.executable, str(GENERATOR), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "s390x"])
def test_the_oci_form_has_decided_every_condition_against_capabilities(architecture: str) -> None:
    document = oci_profile(architecture)
    assert set(document) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    for rule in document["syscalls"]:
        assert set(rule) <= {"names", "action", "errnoRet", "args"}
    allowed = unconditional(document["syscalls"])
    assert set(IO_URING) <= set(allowed)
    assert {"mount", "clone", "clone3", "bpf", "chroot"} & set(allowed) == set()
    clones = [
        rule["args"][0]["index"] for rule in document["syscalls"] if rule["names"] == ["clone"]
    ]
    assert clones == [1 if architecture == "s390x" else 0]


PROBE = f"""
import ctypes, json, socket
libc = ctypes.CDLL(None, use_errno=True)

def errno_of(call, *arguments):
    ctypes.set_errno(0)
    call(*arguments)
    return ctypes.get_errno()

found = dict(
    io_uring_setup=errno_of(libc.syscall, {IO_URING_SETUP}, 0, None),
    clone3=errno_of(libc.syscall, 435, None, 0),
    unshare=errno_of(libc.unshare, 0x10000000),
    alg_socket=errno_of(libc.socket, 38, socket.SOCK_SEQPACKET, 0),
    inet_socket=errno_of(libc.socket, socket.AF_INET, socket.SOCK_STREAM, 0),
    set_personality=errno_of(libc.personality, 0x0040000),  # ADDR_NO_RANDOMIZE
    ask_personality=errno_of(libc.personality, ctypes.c_ulong(0xFFFFFFFF)),
)
print(json.dumps(found))
"""


def probe_under(document: dict[str, Any], folder: Path) -> dict[str, int]:
    path = folder / "profile.json"
    path.write_text(json.dumps(document))
    command = [sys.executable, str(CONFINED), str(path), sys.executable, "-I", "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.fixture
def local_profile() -> dict[str, Any]:
    """The profile as a runtime on this machine would load it, where this machine can."""
    machine = os.uname().machine
    if machine not in ENGINE_ARCHITECTURES:
        pytest.skip(f"the probe does not know the calls of {machine}")
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed: no profile can be loaded here")
    return oci_profile(ENGINE_ARCHITECTURES[machine])


def test_under_the_profile_the_kernel_answers_io_uring_and_refuses_the_rest(
    local_profile: dict[str, Any], tmp_path: Path
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(IO_URING_SETUP, 0, None)
    if ctypes.get_errno() in {errno.EPERM, errno.ENOSYS}:
        pytest.skip("this machine refuses io_uring without any profile")
    found = probe_under(local_profile, tmp_path)
    assert found["io_uring_setup"] not in {0, errno.EPERM, errno.ENOSYS}  # it looked at NULL
    assert found["inet_socket"] == found["ask_personality"] == 0
    assert found["clone3"] == errno.ENOSYS
    refused = {found["unshare"], found["alg_socket"], found["set_personality"]}
    assert refused == {errno.EPERM}


def test_without_the_three_calls_setting_up_a_ring_is_not_permitted(
    local_profile: dict[str, Any], tmp_path: Path
) -> None:
    rules = [rule for rule in local_profile["syscalls"] if rule["names"] != IO_URING]
    found = probe_under({**local_profile, "syscalls": rules}, tmp_path)
    assert found["io_uring_setup"] == errno.EPERM
    assert found["inet_socket"] == 0


# --- the Dockerfile -----------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    beside_python = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside_python) if beside_python.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    command = [hadolint, "--no-color", str(DOCKER / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_build_copies_all_that_packaging_asks_for_and_nothing_that_is_ignored() -> None:
    copied = [name for line in instructions("COPY") for name in line.split()[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []

    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split("\n")
    let_in = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert ignored[next(i for i, line in enumerate(ignored) if line[:1] not in {"#", ""})] == "*"
    assert sorted(copied) == sorted(let_in)

    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text())
    settings = packaging["tool"]["setuptools"]
    folders = settings["package-dir"]
    packages = {
        folders.get(name.split(".")[0], name).split("/")[0] for name in settings["packages"]
    }
    files = {packaging["project"]["readme"], *packaging["project"]["license-files"]}
    wanted = {"pyproject.toml", "setup.py"} | files | {name.split(".")[0] for name in packages}
    assert wanted <= set(copied)


def test_what_a_build_on_the_host_leaves_behind_stays_out_of_the_image() -> None:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for leftover in ("__pycache__", "_liburing.abi3.so", "_liburing.c", "uringd.egg-info"):
        assert any(fnmatch.fnmatch(leftover, pattern) for pattern in patterns), leftover


def test_the_image_runs_as_a_number_and_listens_where_it_is_exposed_and_looked_after() -> None:
    (user,), (port,), (command,) = map(instructions, ("USER", "EXPOSE", "CMD"))
    (health,) = instructions("HEALTHCHECK")
    assert re.fullmatch(r"10001:10001", user)
    serve, look = json.loads(command), json.loads(health.split("CMD", 1)[1])
    assert f"tcp://0.0.0.0:{port}" in serve
    assert f"tcp://127.0.0.1:{port}" in look
    for words in (serve, look):
        assert words[words.index("--token-file") + 1] == "/run/secrets/uringd-token"
    assert json.loads(instructions("ENTRYPOINT")[0]) == look[:1]


# --- compose ------------------------------------------------------------------------------------


def compose(pattern: str) -> str:
    """What the one line of compose.yaml that matches says."""
    text = (DOCKER / "compose.yaml").read_text()
    (found,) = re.findall(rf"^\s*(?:- )?{pattern}$", text, flags=re.MULTILINE)
    assert isinstance(found, str)
    return found


def test_compose_refers_to_files_that_exist() -> None:
    context = (DOCKER / compose(r"context: (\S+)")).resolve()
    assert context == ROOT
    assert (context / compose(r"dockerfile: (\S+)")).is_file()
    assert (DOCKER / compose(r"seccomp:(\S+)")).resolve() == DOCKER / "seccomp.json"


def test_compose_takes_the_token_from_a_file_that_git_does_not() -> None:
    token = compose(r"file: (\S+)").removeprefix("./")
    assert f"/{token}" in (DOCKER / ".gitignore").read_text().splitlines()


def test_compose_publishes_the_exposed_port_on_loopback_only() -> None:
    (port,) = instructions("EXPOSE")
    assert compose(r'"([\d.:]+)"') == f"127.0.0.1:{port}:{port}"


@pytest.mark.parametrize("line", ["read_only: true", "ALL", "no-new-privileges:true"])
def test_compose_takes_away_what_uringd_does_not_need(line: str) -> None:
    assert compose(f"({re.escape(line)})") == line
