"""When what has failed is called again: a model, or a region of AWS."""

from app.integrations.llm.base import ProviderError, ProviderThrottledError

FAILURES = 3
WINDOW_SECONDS = 30.0
"""So many failures within so long, and no answer between, are a reason to pause."""

FIRST_SECONDS = 5.0
"""The first pause; it doubles with each that follows without an answer between."""

LONGEST_SECONDS = 300.0

PROBE_SECONDS = 10.0
"""How long others wait for the one that tries after a pause."""


class Cooldown:
    """Of one thing that is called; times are seconds of a clock that never goes back.

    After a pause one call tries; the others stay away until it has begun to answer.
    """

    __slots__ = ("_failed", "_pauses", "_probing", "_until")

    def __init__(self) -> None:
        self._failed: list[float] = []
        self._pauses = 0
        self._probing = False
        self._until = 0.0

    def cools(self, now: float) -> bool:
        """Whether there is a reason to call something else first."""
        return now < self._until

    def begin(self, now: float) -> None:
        """A call begins: after a pause it is the one that tries."""
        if self._pauses and now >= self._until:
            self._probing, self._until = True, now + PROBE_SECONDS

    def answered(self) -> None:
        """The first token came: it can be called, though it may still break off."""
        if self._until:
            self._pauses, self._probing, self._until = 0, False, 0.0

    def succeeded(self) -> None:
        """A whole answer came."""
        self.answered()
        if self._failed:
            self._failed.clear()

    def failed(self, error: ProviderError, now: float) -> bool:
        """Note a failure; tells whether a pause begins.

        A provider that says when to come back is left alone for so long at once.
        """
        if self.cools(now) and not self._probing:
            return False  # it began before the pause did
        if isinstance(error, ProviderThrottledError) and error.retry_after:
            return self.pause(error.retry_after, now)
        self._failed = [at for at in self._failed if now - at < WINDOW_SECONDS]
        self._failed.append(now)
        if self._probing or len(self._failed) >= FAILURES:
            return self.pause(FIRST_SECONDS * 2.0**self._pauses, now)
        return False

    def pause(self, seconds: float, now: float) -> bool:
        """Pause, but not for ever: whoever asks for a day is asked again sooner."""
        self._until = now + min(seconds, LONGEST_SECONDS)
        self._pauses += 1
        self._probing = False
        self._failed.clear()
        return True
