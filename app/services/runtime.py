"""All that a process holds: made in one place, for the server and for workers alike."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from app.core.bus import Bus, connect
from app.core.config import Settings
from app.core.crypto import Crypto
from app.core.database import Database
from app.core.lag import LoopLag
from app.core.passwords import Passwords
from app.core.ratelimit import Limiter
from app.core.ratelimit import connect as connect_limiter
from app.core.tokens import Tokens
from app.integrations.llm.anthropic import AnthropicProvider
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.guide import GuideProvider
from app.integrations.llm.http import Http
from app.integrations.llm.ollama import OllamaProvider
from app.integrations.llm.openai import OpenAIProvider
from app.integrations.llm.registry import Providers
from app.integrations.mail.base import Mailer
from app.integrations.mail.file import FileMailer
from app.integrations.mail.smtp import SmtpMailer
from app.services.account.accounts import Accounts
from app.services.account.erasure import Erasure
from app.services.audit.chain import require_key
from app.services.auth import Auth
from app.services.chat.turns import Turns
from app.services.credits.leasing import Credits
from app.services.desk.auth import DeskAuth
from app.services.desk.principal import DeskPrincipals
from app.services.introspection import Introspector
from app.services.plan import Plans
from app.services.principal import Principals


class Shutdown:
    """Whether the process is going down."""

    def __init__(self) -> None:
        self.begun = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callback: Callable[[], object] | None = None

    def on_begin(self, callback: Callable[[], object]) -> None:
        """Have `callback` called in this event loop when it begins."""
        self._loop = asyncio.get_running_loop()
        self._callback = callback

    def begin(self) -> None:
        """May be called by a signal handler, and more than once."""
        if not self.begun and self._loop and self._callback:
            self._loop.call_soon_threadsafe(self._callback)
        self.begun = True


@dataclass(frozen=True, slots=True)
class Runtime:
    settings: Settings
    database: Database
    crypto: Crypto
    bus: Bus
    limiter: Limiter
    lag: LoopLag
    tokens: Tokens
    principals: Principals
    passwords: Passwords
    auth: Auth
    mailer: Mailer
    desk_principals: DeskPrincipals
    desk: DeskAuth
    providers: Providers
    plans: Plans
    credits: Credits
    introspector: Introspector
    turns: Turns
    accounts: Accounts
    erasure: Erasure
    shutdown: Shutdown = field(default_factory=Shutdown)

    @property
    def alone(self) -> bool:
        """Whether no other process serves this database: several need Redis."""
        return not self.bus.shared

    @classmethod
    def build(cls, settings: Settings) -> "Runtime":
        """Make everything, connect to nothing."""
        database = Database(settings)
        crypto = Crypto(settings.security)
        tokens = Tokens(settings.security)
        passwords = Passwords(settings.security)
        bus = connect(settings.redis)
        limiter = connect_limiter(settings.redis)
        principals = Principals(database, bus)
        plans = Plans(database, bus)
        desk_principals = DeskPrincipals(database, bus)
        providers = _providers(settings)
        auth = Auth(
            settings.security,
            passwords=passwords,
            tokens=tokens,
            principals=principals,
        )
        turns = Turns(
            settings,
            database=database,
            providers=providers,
            principals=principals,
            bus=bus,
        )
        return cls(
            settings=settings,
            database=database,
            crypto=crypto,
            bus=bus,
            limiter=limiter,
            lag=LoopLag(settings.limits.max_loop_lag),
            tokens=tokens,
            principals=principals,
            passwords=passwords,
            auth=auth,
            desk_principals=desk_principals,
            desk=DeskAuth(
                settings.security,
                passwords=passwords,
                tokens=tokens,
                principals=desk_principals,
            ),
            mailer=_mailer(settings),
            providers=providers,
            plans=plans,
            introspector=Introspector(database, principals, tokens),
            credits=Credits(database, bus=bus, limiter=limiter, plans=plans),
            turns=turns,
            accounts=Accounts(
                settings.accounts,
                crypto=crypto,
                passwords=passwords,
                auth=auth,
                turns=turns,
            ),
            erasure=Erasure(settings.accounts, database=database, crypto=crypto),
        )

    async def open(self) -> None:
        """Raises ConfigError for keys that are not those of the database."""
        await require_key(self.database, self.crypto)
        self.lag.open()
        await self.bus.open()
        await self.principals.open()
        await self.plans.open()
        await self.credits.open(alone=self.alone)
        await self.desk_principals.open()
        await self.turns.open(alone=self.alone)

    async def close(self) -> None:
        await self.turns.close()
        await self.credits.close()
        await self.plans.close()
        await self.desk_principals.close()
        await self.principals.close()
        await self.providers.close()
        await self.bus.close()
        await self.limiter.close()
        await self.lag.close()
        await self.database.close()


def _providers(settings: Settings) -> Providers:
    catalogue = Catalogue.load(settings.models.catalogue)
    http = Http(settings.models)
    return Providers(
        settings,
        [
            BedrockProvider(settings.models, catalogue, http),
            AnthropicProvider(settings.models, catalogue, http),
            OpenAIProvider(settings.models, catalogue, http),
            OllamaProvider(settings.models, catalogue, http),
            GuideProvider(),
        ],
        catalogue=catalogue,
    )


def _mailer(settings: Settings) -> Mailer:
    if settings.mail.smtp_host:
        return SmtpMailer(settings.mail)
    return FileMailer(settings.server.data_dir / "mail")
