"""`uringd conformance` in a process of its own: what it prints, writes and exits with."""

from __future__ import annotations

import json
import socketserver
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from uringd.conformance.cases import CASES

STUCK_S = 60
"""Nothing waits for this on the good way."""

if TYPE_CHECKING:
    from tests.uringd.cli.conftest import ServeProcess, ServerProcess, UringdCommand


def test_the_list_needs_no_server(uringd: UringdCommand) -> None:
    done = uringd("conformance", "--list")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert [line.split()[0] for line in lines] == [case.id for case in CASES]
    rows = json.loads(uringd("conformance", "--list", "--json").stdout)
    assert [row["id"] for row in rows] == [case.id for case in CASES]


def test_cases_that_pass_are_0(uringd: UringdCommand, server: ServerProcess) -> None:
    done = uringd("conformance", server.unix, "--case", "PI-001", "--case", "HD-001")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1:] == [["Header", "1", "0", "0"], ["PING", "1", "0", "0"], ["all", "2", "0", "0"]]


def test_a_skipped_case_is_0_and_says_why(uringd: UringdCommand, server: ServerProcess) -> None:
    done = uringd("conformance", server.tcp, "--case", "SH-001")
    assert done.returncode == 0
    assert "skipped SH-001: nobody makes this server leave: give --server-pid" in done.stdout


def test_a_case_that_fails_is_1_and_says_what_came(uringd: UringdCommand, tmp_path: Path) -> None:
    """On a server of another kind, of which nothing more can be asked."""
    path = tmp_path / "web"

    class Web(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(64)
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n".ljust(64))

    with socketserver.UnixStreamServer(str(path), Web) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        done = uringd("conformance", f"unix://{path}", "--case", "PI-001")
        thread.join(STUCK_S)
    assert done.returncode == 1
    failed, expected, got = done.stdout.splitlines()[:3]
    assert failed == "FAILED PI-001 (PING): PING is answered, again and again."
    assert expected == "  expected a frame of this protocol"
    assert got.startswith("  got      a frame begins with b'URIO'")


def test_too_little_patience_is_no_fault_of_the_server(
    uringd: UringdCommand, server: ServerProcess
) -> None:
    done = uringd("conformance", server.unix, "--case", "PH-007", "--timeout", "5")
    assert done.returncode == 0
    assert "skipped PH-007" in done.stdout


def test_json_has_every_result(
    uringd: UringdCommand, server: ServerProcess, tmp_path: Path
) -> None:
    xml = tmp_path / "results.xml"
    done = uringd("conformance", server.unix, "--case", "LI-004", "--json", "--junit", xml)
    told = json.loads(done.stdout)
    [row] = told["cases"]
    assert (row["id"], row["outcome"]) == ("LI-004", "passed")
    assert told["prefix"].startswith("conformance-")
    [case] = ET.parse(xml).getroot().iter("testcase")
    assert case.get("classname") == "LIST"


def test_the_server_is_left_as_it_said(uringd: UringdCommand, server: ServerProcess) -> None:
    uringd("conformance", server.unix, "--case", "CO-011", "--case", "ST-001", "--case", "AB-001")
    assert server.spool == []
    [directory] = server.published
    assert directory.startswith("conformance-")
    assert len(list((server.root / directory).iterdir())) == 2


def test_a_server_can_be_made_to_leave(uringd: UringdCommand, serve_process: ServeProcess) -> None:
    server = serve_process()
    pid = server.process.pid
    ids = [word for n in range(1, 7) for word in ("--case", f"SH-{n:03}")]
    done = uringd("conformance", server.tcp, *ids, "--server-pid", pid)
    assert done.returncode == 0, done.stdout
    assert server.process.wait(timeout=30) == 0


def test_nobody_there_is_4(uringd: UringdCommand, tmp_path: Path) -> None:
    done = uringd("conformance", f"unix://{tmp_path}/nobody")
    assert done.returncode == 4
    assert done.stderr.startswith(f"uringd: cannot connect to unix://{tmp_path}/nobody: ")


def test_a_token_that_is_not_taken_is_3(
    uringd: UringdCommand, serve_process: ServeProcess, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("a long random word\n")
    server = serve_process("--token-file", token)
    assert uringd("conformance", server.unix, "--case", "PI-001").returncode == 3
    done = uringd("conformance", server.unix, "--token-file", token, "--case", "HE-008")
    assert done.returncode == 0
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_wrong_words_are_2(uringd: UringdCommand, server: ServerProcess) -> None:
    assert uringd("conformance").returncode == 2
    done = uringd("conformance", server.unix, "--case", "ZZ-999")
    assert done.returncode == 2
    assert "there is no case ZZ-999" in done.stderr
