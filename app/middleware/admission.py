"""No more requests at once than can be served well: the others are told so at once.

A request counts until its answer begins: streams, which live long and cost little, are
bounded by MAX_RUNNING_TURNS. Bodies that have not come whole with their head may take
up half of the places, so that slow senders cannot keep everybody else out.
"""

from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from app.api.errors import problem
from app.core.exceptions import OverloadedError
from app.core.lag import LoopLag
from app.core.metrics import REQUESTS_IN_PROGRESS, Quick
from app.middleware.front import PROBES, Verdict, Visit

REFUSED = Counter(
    "workroom_requests_refused", "Requests refused for overload", ["reason"]
)

_in_progress = Quick(REQUESTS_IN_PROGRESS)


class Admission:
    def __init__(self, *, most: int, lag: LoopLag) -> None:
        self._most = most
        self._most_arriving = max(1, most // 2)
        self._lag = lag
        self._here = 0
        self._arriving = 0

    def enter(self, visit: Visit) -> Verdict:
        if visit.scope["path"] in PROBES:
            return None
        if self._here >= self._most or self._lag.too_long:
            REFUSED.labels("capacity" if self._here >= self._most else "lag").inc()
            error = OverloadedError()
            return problem(error.problem(), headers=error.headers)
        place = _Place(self)
        if not visit.arrived:
            visit.receive = place.receiving(visit.receive)
        visit.at_start.append(place.leave)
        visit.at_end.append(place.end)
        return None

    # For places

    def change(self, change: int) -> None:
        self._here += change
        _in_progress.inc(change)

    def arrive(self, change: int) -> None:
        if change > 0 and self._arriving >= self._most_arriving:
            REFUSED.labels("bodies").inc()
            raise HTTPException(503)  # FastAPI lets no other error out of its parsing
        self._arriving += change


class _Place:
    """What one request takes up."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._taken = True
        self._arriving = False
        admission.change(1)

    def leave(self, _start: Message | None = None) -> None:
        if self._taken:
            self._taken = False
            self._admission.change(-1)

    def end(self) -> None:
        self.arrived()
        self.leave()

    def arrived(self) -> None:
        if self._arriving:
            self._arriving = False
            self._admission.arrive(-1)

    def receiving(self, receive: Receive) -> Receive:
        async def noting_arrival() -> Message:
            message = await receive()
            if not message.get("more_body"):
                self.arrived()
            elif not self._arriving and self._taken:
                self._admission.arrive(1)
                self._arriving = True
            return message

        return noting_arrival
