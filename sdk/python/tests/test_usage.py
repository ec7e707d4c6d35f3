import time
from uuid import uuid4

import pytest
from conftest import SUB, Connect, FakeWorkroom, active
from workroom_auth.usage import Reporter

FAR = 3600.0


def test_reports_go_out_at_the_end(workroom: FakeWorkroom, connect: Connect) -> None:
    workroom.answers["token"] = active()
    auth = connect(report_seconds=FAR)

    assert auth.report(auth.check("token"), "pages", 3)
    assert auth.report(SUB, "documents")
    auth.close()

    told = [(r["subject"], r["kind"], r["amount"]) for r in workroom.reports]
    assert told == [(SUB, "pages", 3), (SUB, "documents", 1)]


def test_they_go_out_after_a_while(workroom: FakeWorkroom, connect: Connect) -> None:
    connect(report_seconds=0.01).report(SUB, "pages")
    for _ in range(500):
        if workroom.reports:
            break
        time.sleep(0.01)

    assert len(workroom.reports) == 1


def test_a_full_batch_does_not_wait(workroom: FakeWorkroom, connect: Connect) -> None:
    auth = connect(report_seconds=FAR)
    for _ in range(1200):
        auth.report(SUB, "pages")
    for _ in range(500):
        if len(workroom.reports) >= 500:
            break
        time.sleep(0.01)
    auth.close()

    assert len({r["id"] for r in workroom.reports}) == len(workroom.reports) == 1200


def test_what_is_not_taken_is_sent_again_under_the_same_id(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    auth = connect(report_seconds=FAR)
    auth.report(SUB, "pages")
    before = [*auth._reporter._waiting]
    workroom.status = 503
    assert not auth._reporter.flush()

    workroom.status = 200
    assert auth._reporter.flush()

    assert workroom.reports == before


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workroom_auth.usage._MOST", 2)
    reporter = Reporter(lambda _: None, seconds=FAR)

    taken = [reporter.add(SUB, "pages", 1) for _ in range(3)]
    reporter.close()

    assert taken == [True, True, False]


@pytest.mark.parametrize(
    ("subject", "kind", "amount"),
    [("ada", "pages", 1), (str(uuid4()), "Two words", 1), (str(uuid4()), "pages", 0)],
    ids=["subject", "kind", "amount"],
)
def test_what_workroom_would_refuse_is_an_error_at_once(
    subject: str, kind: str, amount: int
) -> None:
    reporter = Reporter(lambda _: None, seconds=FAR)

    with pytest.raises(ValueError, match=r"UUID|kind|amount"):
        reporter.add(subject, kind, amount)
