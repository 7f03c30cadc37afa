"""Clients that go before their answer: nothing is computed for them, and nobody beside them notices."""

import logging
import socket
import time
from contextlib import ExitStack

import pytest

from tests.faults.hooks import Counting, Gate, ask, hooked, scores, solo
from tests.faults.raw import connected, read_reply, request, reset
from tests.serving.live import Live


def wait_until_open_rows(live: Live, wanted: int) -> None:
    until = time.monotonic() + 10
    while (state := live.models.of(None).scheduler.waiting()).open_rows != wanted:
        assert time.monotonic() < until, state
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_rows_of_clients_that_go_while_they_wait_are_dropped(live: Live, counted: Counting, how: str) -> None:
    gate, count = Gate(), 40
    before = (counted.scored, counted.dropped_rows)
    with hooked(live, gate), connected(live.port) as first, ExitStack() as all_lines:
        first.sendall(request(ask("the dough")))
        assert gate.reached.wait(10)
        lines = []
        for place in range(count):
            lines.append(all_lines.enter_context(connected(live.port)))
            lines[-1].sendall(request(ask(f"reply {how} {place}")))
        wait_until_open_rows(live, count + 1)
        for line in lines:
            if how == "reset":
                reset(line)
            elif how == "half":
                line.shutdown(socket.SHUT_WR)
                assert line.recv(100) == b""  # half a connection is taken for none
            else:
                line.close()
        wait_until_open_rows(live, 1)
        neighbor = all_lines.enter_context(connected(live.port))  # not before: a connection that says nothing is ended
        neighbor.sendall(request(ask("flour and water")))
        wait_until_open_rows(live, 2)
        gate.opened.set()
        assert read_reply(first)[0].status == 200
        answer = read_reply(neighbor)[0].json()
    assert [row["score"] for row in answer["scores"]] == solo(live, "flour and water")
    assert (counted.scored - before[0], counted.dropped_rows - before[1]) == (2, count)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_goes_while_its_row_is_scored_takes_nobody_with_it(
    live: Live, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    gate = Gate()
    caplog.set_level(logging.ERROR)
    with hooked(live, gate), connected(live.port) as goes, ExitStack() as later:
        goes.sendall(request(ask("mix flour", "salt and yeast")))
        assert gate.reached.wait(10)
        mate = later.enter_context(connected(live.port))
        mate.sendall(request(ask("salt and yeast")))  # the same row: it hangs on to the batch that is under way
        wait_until_open_rows(live, 3)
        if how == "reset":
            reset(goes)
        else:
            goes.close()
        wait_until_open_rows(live, 1)
        gate.opened.set()
        answer = read_reply(mate)[0].json()
    assert [row["score"] for row in answer["scores"]] == solo(live, "salt and yeast")
    assert scores(live, "mix flour") == solo(live, "mix flour")
    assert not caplog.records


def test_a_client_that_goes_while_it_reads_leaves_no_trace(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            with connected(live.port) as line:
                line.sendall(request(ask(*(f"reply {place}" for place in range(300)))))
                line.recv(10)
                reset(line)
        wait_until_open_rows(live, 0)
    assert scores(live, "hello") == solo(live, "hello")
    assert not caplog.records
