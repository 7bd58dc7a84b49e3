"""Threads that wait for one that answers: each is woken by the one before it, and nobody is forgotten."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from metering.services.grouping import Groups, Waiting, wake


def settled(count):
    group = [Waiting(number) for number in range(count)]
    for one in group:
        one.answer(one.question * 2)
    return group


def outcome(waiting, seconds):
    try:
        return waiting.wait(seconds)
    except TimeoutError:
        return "gone"


def test_each_thread_gets_its_own_answer():
    group = settled(50)
    with ThreadPoolExecutor(50) as threads:
        answers = [threads.submit(one.wait, 10) for one in group]
        wake(group)
        assert [answer.result() for answer in answers] == [number * 2 for number in range(50)]


def test_an_error_reaches_its_thread_and_wakes_the_next():
    first, second = group = [Waiting(1), Waiting(2)]
    first.fail(ValueError("no"))
    second.answer("yes")
    wake(group)
    with pytest.raises(ValueError, match="no"):
        first.wait(1)
    assert second.wait(1) == "yes"


def test_whoever_has_gone_is_passed_over():
    group = settled(6)
    for number in (0, 2, 3):
        assert outcome(group[number], 0) == "gone"
    with ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(outcome, group[number], 10) for number in (1, 4, 5)]
        wake(group)
        assert [answer.result() for answer in answers] == [2, 8, 10]


def test_nobody_is_forgotten_where_threads_go_at_the_moment_at_which_they_are_woken():
    draw = random.Random(4)
    with ThreadPoolExecutor(12) as threads:
        for _ in range(150):
            group = settled(12)
            # Every third is patient; the others go at about the time at which the group is woken.
            patience = [10 if number % 3 == 0 else draw.uniform(0, 0.004) for number in range(12)]
            answers = [threads.submit(outcome, *pair) for pair in zip(group, patience, strict=True)]
            wake(group)
            found = [answer.result(timeout=5) for answer in answers]
            assert found[::3] == [0, 6, 12, 18]
            assert all(one in ("gone", number * 2) for number, one in enumerate(found))


def test_a_group_is_all_that_have_asked_meanwhile():
    groups = Groups(size_of=lambda question: 1, size_max=10)
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(groups.ask, number, seconds=10) for number in range(4)]
        answered = 0
        while answered < 4:
            group = groups.next()
            for one in group:
                one.answer(one.question + 100)
            wake(group)
            answered += len(group)
        assert sorted(answer.result() for answer in answers) == [100, 101, 102, 103]
