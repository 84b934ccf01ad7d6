"""remarks.py: what must not be left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.harness.remarks import remarks

if TYPE_CHECKING:
    from bench.harness.results import Result
    from tests.bench.conftest import MakeResult


def said_of(result: Result) -> list[str]:
    (job,) = result.settings.jobs
    return remarks(result, job)


def test_a_quiet_run_of_everything_has_no_remarks(make_result: MakeResult) -> None:
    assert said_of(make_result({"fio": [1.0], "uringio-slots": [1.0], "os-write": [4.0]})) == []


def test_nothing_is_left_out_in_silence(make_result: MakeResult) -> None:
    facts = {"direct": False, "backend": "threads", "registered": False, "notes": ["no huge pages"]}
    result = make_result({"uringio-slots": [1.0]}, others_s=9.0, facts=facts)
    result.missing["fresh"] = {"fio": "fio is not installed"}
    said = " ".join(said_of(result))
    for word in ("fio is not installed", "not direct", "threads", "not registered", "huge", "1 of"):
        assert word in said


def test_who_cannot_for_the_same_reason_stands_in_one_remark(make_result: MakeResult) -> None:
    result = make_result({"uringio-slots": [1.0]}, job="peers")
    result.missing["peers"] = {"trio-file": "because", "aiofiles": "because"}
    (remark,) = said_of(result)
    assert remark == "trio.open_file, one at a time; aiofiles, one at a time: not here, because."


def test_what_was_switched_off_on_purpose_is_no_downgrade(make_result: MakeResult) -> None:
    facts = {"direct": False, "registered": False}
    assert said_of(make_result({"no-direct": [1.0]}, job="ablation", facts=facts)) == []


def test_what_a_peer_did_not_do_itself_is_said(make_result: MakeResult) -> None:
    (said,) = said_of(make_result({"ayafileio-direct": [1.0]}, job="peers"))
    assert "O_DIRECT" in said


def test_a_peer_that_ran_on_something_else_than_io_uring_says_so(make_result: MakeResult) -> None:
    facts = {"context": "caio.thread_aio_asyncio"}
    (said,) = said_of(make_result({"aiofile": [1.0]}, job="peers", facts=facts))
    assert "caio.thread_aio_asyncio" in said


def test_an_uploads_receipt_is_looked_at_too(make_result: MakeResult) -> None:
    facts = {"client_cpu_s": 0.25, "receipt": {"direct": False, "backend": "io_uring"}}
    said = " ".join(said_of(make_result({"uringd-tcp": [1.0]}, facts=facts)))
    assert "not direct" in said
    assert "client used 0.25 CPU s/GiB" in said


def test_a_run_with_memory_left_as_it_was_says_what_that_does_to_os_write(
    make_result: MakeResult,
) -> None:
    result = make_result({"os-write": [4.0]})
    object.__setattr__(result.settings, "memory", "as-is")
    (said,) = said_of(result)
    assert "Free memory was left as it was" in said
