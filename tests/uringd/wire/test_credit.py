import pytest
from hypothesis import given
from hypothesis import strategies as st

from uringd.wire.codes import CREDIT_MAX, ErrorCode
from uringd.wire.credit import ReceiveCredit, SendCredit
from uringd.wire.exceptions import LocalProtocolError, RemoteProtocolError


def test_a_client_sends_as_many_chunks_as_it_has_credit() -> None:
    credit = SendCredit(2)
    credit.consume()
    credit.consume()
    with pytest.raises(LocalProtocolError, match="wait for an ACK"):
        credit.consume()
    credit.replenish(1)
    assert credit.available == 1


@pytest.mark.parametrize("count", [-1, CREDIT_MAX])
def test_a_client_does_not_believe_impossible_credit(count: int) -> None:
    credit = SendCredit(1)
    with pytest.raises(RemoteProtocolError) as caught:
        credit.replenish(count)
    assert caught.value.code is ErrorCode.BAD_FRAME and credit.available == 1


def test_a_client_that_overdraws_is_found_out() -> None:
    credit = ReceiveCredit(1)
    credit.consume()
    with pytest.raises(RemoteProtocolError) as caught:
        credit.consume()
    assert caught.value.code is ErrorCode.CREDIT_EXCEEDED and credit.used == 1


@pytest.mark.parametrize("count", [-1, 2])
def test_a_server_cannot_return_credit_that_is_not_in_use(count: int) -> None:
    credit = ReceiveCredit(3)
    credit.consume()
    with pytest.raises(LocalProtocolError):
        credit.release(count)
    assert credit.available == 2


@pytest.mark.parametrize("granted", [0, -1, CREDIT_MAX + 1])
def test_a_server_grants_something_and_not_everything(granted: int) -> None:
    with pytest.raises(LocalProtocolError):
        ReceiveCredit(granted)


@given(st.integers(1, 8), st.lists(st.booleans(), max_size=200))
def test_both_ends_agree_whatever_happens(granted: int, steps: list[bool]) -> None:
    sender, receiver = SendCredit(granted), ReceiveCredit(granted)
    for sends in steps:
        if sends and sender.available:
            sender.consume()
            receiver.consume()
        elif not sends and receiver.used:
            receiver.release()
            sender.replenish(1)
        assert sender.available == receiver.available
        assert 0 <= receiver.used <= granted
