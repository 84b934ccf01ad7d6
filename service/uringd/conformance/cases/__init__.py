"""All cases, in the order of PROTOCOL.md; those that end the server come last."""

from __future__ import annotations

from uringd.conformance.cases import (
    asking,
    chunks,
    commit,
    create,
    data,
    errors,
    fencing,
    flow,
    header,
    hello,
    lanes,
    messages,
    names,
    pages,
    phases,
    requests,
    shutdown,
    transport,
)

SECTIONS = (
    transport.SECTION,
    phases.SECTION,
    phases.FRAMES,
    header.SECTION,
    requests.SECTION,
    requests.CHECKSUMS,
    messages.SECTION,
    hello.SECTION,
    create.SECTION,
    names.SECTION,
    data.SECTION,
    flow.ACK,
    flow.SYNC,
    commit.SECTION,
    asking.SECTION,
    asking.STAT,
    asking.LIST,
    asking.PING,
    errors.SECTION,
    pages.SECTION,
    chunks.SECTION,
    flow.SECTION,
    commit.ORDERING,
    fencing.SECTION,  # with the cases of resume
    lanes.SECTION,
    pages.PAGES,
    errors.LIMITS,
    errors.CODES,
    errors.VERSIONS,
    shutdown.SECTION,
)
CASES = tuple(case for section in SECTIONS for case in section.cases)
