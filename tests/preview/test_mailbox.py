"""What is on its way to a viewer stays bounded, and the newest picture always arrives."""

from __future__ import annotations

import json

import pytest

from vidsr.preview.mailbox import Mailbox, Message

MEGABYTE = 1 << 20


class Time:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox(lambda: None, Time())


def serial(message: Message | None) -> int:
    assert message is not None
    length = int.from_bytes(message.body[:4], "little")
    return int(json.loads(message.body[4 : 4 + length])["serial"])


def send(mailbox: Mailbox, number: int, size: int = MEGABYTE, kind: str = "picture") -> bool:
    return mailbox.send({"kind": kind, "serial": number}, [bytes(size)])


def taken(mailbox: Mailbox) -> list[Message]:
    return list(iter(mailbox.take, None))


def test_everything_in_order_while_the_link_is_quick(mailbox: Mailbox) -> None:
    for number in range(50):
        mailbox.tell({"tell": "state", "serial": number})
        assert send(mailbox, number, 1000) and send(mailbox, number, 1000, "sound")
        found = taken(mailbox)
        assert [message.kind for message in found] == ["text", "picture", "sound"]
        mailbox.arrived(found[-1].number)


def test_behind_a_full_link_the_newest_picture_waits(mailbox: Mailbox) -> None:
    assert send(mailbox, 0)
    first = mailbox.take()
    assert first is not None
    assert [send(mailbox, number) for number in (1, 2, 3)] == [True, False, False]
    assert mailbox.take() is None
    mailbox.arrived(first.number)
    assert serial(mailbox.take()) == 3
    assert mailbox.take() is None


def test_texts_pass_pictures_that_wait(mailbox: Mailbox) -> None:
    send(mailbox, 0)
    taken(mailbox)
    send(mailbox, 1)
    mailbox.tell({"tell": "notice"})
    assert [message.kind for message in taken(mailbox)] == ["text"]


@pytest.mark.parametrize("kind", ["picture", "sound"])
def test_memory_is_bounded_where_nothing_arrives(mailbox: Mailbox, kind: str) -> None:
    out = 0
    for number in range(1000):
        send(mailbox, number, 100_000, kind)
        out += sum(len(message.body) for message in taken(mailbox))
    assert out < 2 * MEGABYTE
    assert not send(mailbox, 0, 1, kind)


def test_sound_has_an_allowance_of_its_own(mailbox: Mailbox) -> None:
    send(mailbox, 0)
    taken(mailbox)
    assert all(send(mailbox, number, 96_000, "sound") for number in range(10))
    assert len(taken(mailbox)) == 10


def flow(delay: float, rounds: int) -> int:
    """How many pictures of 100 kB are under way in the end, on a link that is always full and takes `delay` for one."""
    time = Time()
    mailbox = Mailbox(lambda: None, time)
    under_way: list[Message] = []
    for number in range(rounds):
        while send(mailbox, number, 100_000):
            under_way += taken(mailbox)
        time.seconds += delay
        mailbox.arrived(under_way.pop(0).number)
        under_way += taken(mailbox)
    return len(under_way)


def test_the_window_follows_the_link() -> None:
    assert flow(0.5, 100) == 1
    assert 2 <= flow(0.1, 100) <= 4
    assert flow(0.001, 1000) > 20


def test_a_picture_larger_than_any_window_arrives(mailbox: Mailbox) -> None:
    assert send(mailbox, 1, 20 * MEGABYTE)
    assert serial(mailbox.take()) == 1


def test_what_is_told_before_the_end_is_taken_after_it(mailbox: Mailbox) -> None:
    send(mailbox, 1)
    mailbox.tell({"tell": "taken"})
    mailbox.close()
    mailbox.tell({"tell": "state"})
    assert not send(mailbox, 2)
    assert [message.body for message in taken(mailbox)] == [b'{"tell": "taken"}']
