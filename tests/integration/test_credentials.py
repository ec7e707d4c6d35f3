"""TRUST T4, F10: whatever happens in whatever order, no ended credential ever works.

A machine logs in and out, makes, changes, rotates and revokes keys, suspends and
activates the account, over one of two processes, and after each step tries every
credential that there ever was in both.
"""

import asyncio
from collections.abc import Coroutine
from itertools import chain
from typing import Any, TypeVar
from uuid import UUID, uuid4

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import update

from app.core.bus import LocalBus
from app.core.config import Settings
from app.core.crypto import Crypto
from app.core.database import Database
from app.core.exceptions import UnauthenticatedError
from app.core.keys import looks_like_key
from app.core.passwords import Passwords
from app.core.tokens import Tokens
from app.models import User
from app.schemas.apikey import ApiKeyCreate, ApiKeyUpdate, KeyRotation
from app.schemas.user import Login, UserCreate
from app.services.apikey import ApiKeys
from app.services.auth import Auth, Client
from app.services.authorization import Principal
from app.services.lockout import Lockout
from app.services.login import Logins
from app.services.mfa import Mfa
from app.services.principal import Principals
from tests.conftest import SettingsFactory

T = TypeVar("T")
PASSWORD = "a long pass phrase"
EXAMPLES, STEPS = 8, 15
_HERE = Client(ip="203.0.113.7", user_agent=None)
anything = st.integers(0, 2**16)


class Credentials(RuleBasedStateMachine):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._database = Database(settings)
        self._tokens = Tokens(settings.security)
        bus = LocalBus()
        lockout = Lockout(settings)
        mfa = Mfa(settings, Crypto(settings.security), lockout)
        self._processes = [Principals(self._database, bus, mfa) for _ in range(2)]
        self._auth = [
            Auth(
                settings.security,
                passwords=Passwords(settings.security),
                tokens=self._tokens,
                principals=principals,
                logins=Logins(lockout, mfa),
            )
            for principals in self._processes
        ]
        self._sessions: dict[str, str] = {}
        """Living ones: the refresh token of each access token."""
        self._keys: dict[UUID, list[str]] = {}
        """Keys that are not revoked: what works, the newest last."""
        self._ended: set[str] = set()
        self._active = True
        self._email = f"{uuid4()}@example.com"
        self._run(self._begin())

    def teardown(self) -> None:
        self._run(self._end())
        self._runner.close()

    @precondition(lambda self: self._active)
    @rule(process=st.integers(0, 1))
    def log_in(self, process: int) -> None:
        self._run(self._log_in(process))

    @precondition(lambda self: self._sessions)
    @rule(which=anything, process=st.integers(0, 1))
    def log_out(self, which: int, process: int) -> None:
        access = sorted(self._sessions)[which % len(self._sessions)]
        refresh = self._sessions.pop(access)
        self._ended.add(access)
        self._run(self._log_out(process, refresh))

    @rule(process=st.integers(0, 1))
    def make_key(self, process: int) -> None:
        made = self._run(self._with_keys(process, "create", ApiKeyCreate(name="x")))
        self._keys[made.id] = [made.key]

    @precondition(lambda self: self._keys)
    @rule(
        which=anything,
        process=st.integers(0, 1),
        grace=st.sampled_from([0, 600]),
    )
    def rotate_key(self, which: int, process: int, grace: int) -> None:
        key = self._some_key(which)
        form = KeyRotation(grace_seconds=grace)
        done = self._run(self._with_keys(process, "rotate", key, form))
        works_on = self._keys[key][-1:] if grace else []
        self._ended |= set(self._keys[key]) - set(works_on)
        self._keys[key] = [*works_on, done.key]

    @precondition(lambda self: self._keys)
    @rule(
        which=anything,
        process=st.integers(0, 1),
        what=st.sampled_from(["change", "end_previous", "revoke"]),
    )
    def touch_key(self, which: int, process: int, what: str) -> None:
        key = self._some_key(which)
        *previous, current = self._keys[key]
        if what == "change":
            form = ApiKeyUpdate(scopes=["models"])
            self._run(self._with_keys(process, what, key, form))
        elif what == "revoke":
            self._run(self._with_keys(process, what, key))
            self._ended |= {*previous, current}
            del self._keys[key]
        elif previous:
            self._run(self._with_keys(process, what, key))
            self._ended |= {*previous}
            self._keys[key] = [current]

    @rule(process=st.integers(0, 1))
    def suspend_or_activate(self, process: int) -> None:
        self._active = not self._active
        self._run(self._set_status(process))
        if not self._active:
            self._ended |= self._sessions.keys()
            self._sessions.clear()

    @invariant()
    def exactly_the_living_work(self) -> None:
        for process in range(2):
            for text in self._sessions:
                assert self._works(process, text)
            for text in chain.from_iterable(self._keys.values()):
                assert self._works(process, text) == self._active
            for text in self._ended:
                assert not self._works(process, text)

    # How it is done

    def _some_key(self, which: int) -> UUID:
        return sorted(self._keys)[which % len(self._keys)]

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    async def _begin(self) -> None:
        for principals in self._processes:
            await principals.open()
        async with self._database.unit_of_work() as session:
            form = UserCreate(email=self._email, password=PASSWORD)
            self._user_id = (await self._auth[0].register(session, form)).id

    async def _end(self) -> None:
        for principals in self._processes:
            await principals.close()
        await self._database.close()

    async def _log_in(self, process: int) -> None:
        form = Login(login=self._email, password=PASSWORD)
        async with self._database.unit_of_work() as session:
            done = await self._auth[process].login(session, form, _HERE)
        self._sessions[done.tokens.access_token] = done.tokens.refresh_token

    async def _log_out(self, process: int, refresh_token: str) -> None:
        async with self._database.unit_of_work() as session:
            await self._auth[process].logout(session, refresh_token)

    async def _with_keys(self, process: int, what: str, *arguments: Any) -> Any:
        owner = Principal(user_id=self._user_id, session_id=uuid4())
        async with self._database.unit_of_work() as session:
            keys = ApiKeys(session, owner, self._processes[process], ip=None)
            return await getattr(keys, what)(*arguments)

    async def _set_status(self, process: int) -> None:
        status = "active" if self._active else "suspended"
        async with self._database.unit_of_work() as session:
            await session.execute(
                update(User).where(User.id == self._user_id).values(status=status)
            )
            await self._auth[process].end_sessions_of(session, self._user_id)

    def _works(self, process: int, text: str) -> bool:
        return self._run(self._principal(self._processes[process], text))

    async def _principal(self, principals: Principals, text: str) -> bool:
        try:
            if looks_like_key(text):
                found = await principals.of_key(text, ip=None)
            else:
                found = await principals.of(self._tokens.read_access(text))
        except UnauthenticatedError:
            return False
        return found.user_id == self._user_id


def test_no_ended_credential_ever_works(settings_with: SettingsFactory) -> None:
    """TRUST T4, F10."""
    machine: Any = lambda: Credentials(settings_with())  # noqa: E731 - a factory
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
