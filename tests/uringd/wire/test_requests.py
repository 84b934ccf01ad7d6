from uringd.wire.codes import REQUESTS_MAX, ErrorCode, FrameType
from uringd.wire.requests import OpenRequests


def test_a_cookie_is_free_again_after_its_reply() -> None:
    requests = OpenRequests()
    requests.begin(7, FrameType.SYNC, 1)
    problem = requests.problem_with_request(7)
    assert problem is not None and problem[0] is ErrorCode.OUT_OF_ORDER
    requests.end(7)
    assert requests.problem_with_request(7) is None and len(requests) == 0


def test_unanswered_requests_are_limited() -> None:
    requests = OpenRequests()
    for cookie in range(1, REQUESTS_MAX + 1):
        assert requests.problem_with_request(cookie) is None
        requests.begin(cookie, FrameType.PING, 0)
    problem = requests.problem_with_request(1000)
    assert problem is not None and problem[0] is ErrorCode.TOO_MANY_REQUESTS
    requests.clear()
    assert requests.problem_with_request(1000) is None


def test_a_reply_fits_what_was_asked() -> None:
    requests = OpenRequests()
    requests.begin(7, FrameType.SYNC, 1)
    assert requests.upload_of(7) == 1 and requests.upload_of(8) == 0
    assert requests.problem_with_reply(7, FrameType.SYNC, 1) is None
    assert requests.problem_with_reply(7, FrameType.ERROR, 1) is None
    assert requests.problem_with_reply(7, FrameType.COMMIT, 1) is not None
    assert requests.problem_with_reply(7, FrameType.SYNC, 2) is not None
    assert requests.problem_with_reply(8, FrameType.SYNC, 1) is not None
