"""Stages beside each other: in order, bounded, stopped by errors and by whoever has enough."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cellvit_jax.inference.queues import ahead, parallel


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def wait_for(condition) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_items_come_in_order():
    assert list(ahead(range(100), 3)) == list(range(100))
    assert list(ahead([], 3)) == []


def test_no_more_are_made_than_the_queue_holds():
    made = []
    items = ahead((made.append(i) or i for i in range(100)), 3)
    assert next(items) == 0
    assert wait_for(lambda: len(made) == 5)  # one taken, three waiting, one in the hand
    time.sleep(0.05)
    assert len(made) == 5
    items.close()


def failing():
    yield 1
    raise ValueError("no more")


def test_an_error_comes_after_the_items_before_it():
    items = ahead(failing(), 5)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_closing_closes_what_is_read():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    items = ahead(endless(), 2)
    next(items)
    items.close()
    assert closed.is_set()


def test_parallel_keeps_the_order_and_works_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)

    def meet(i):
        meeting.wait()
        return i

    with ThreadPoolExecutor(2) as pool:
        assert list(parallel(meet, range(10), pool, 3)) == list(range(10))


def test_parallel_raises_what_a_job_raises():
    with ThreadPoolExecutor(2) as pool:
        results = parallel(lambda i: 1 // i, [1, 0, 1], pool, 2)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
