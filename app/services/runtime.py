"""All that a process holds: made in one place, for the server and for workers alike."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from app.core.bus import Bus, connect
from app.core.config import LiveSettings, Settings
from app.core.crypto import Crypto
from app.core.database import Database
from app.core.lag import LoopLag
from app.core.passwords import Passwords
from app.core.ratelimit import Limiter
from app.core.ratelimit import connect as connect_limiter
from app.core.tokens import Tokens
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.choice import connect as connect_models
from app.integrations.llm.registry import Providers
from app.integrations.llm.routing import Router
from app.integrations.mail.base import Mailer
from app.integrations.mail.file import FileMailer
from app.integrations.mail.smtp import SmtpMailer
from app.integrations.storage.base import Storage
from app.integrations.storage.choice import connect as connect_storage
from app.services.account.accounts import Accounts
from app.services.account.erasure import Erasure
from app.services.audit.chain import require_key
from app.services.auth import Auth
from app.services.chat.books import Books
from app.services.chat.search_index import SearchIndex
from app.services.chat.turns import Turns
from app.services.credits.leasing import Credits
from app.services.desk.auth import DeskAuth
from app.services.desk.principal import DeskPrincipals
from app.services.file.attachments import Attachments
from app.services.file.service import Files
from app.services.gateway.asides import Asides
from app.services.gateway.calls import Gateway
from app.services.introspection import Introspector
from app.services.ip_rule import IpRules
from app.services.knowledge.embedding import Embedding
from app.services.knowledge.indexing import Indexing
from app.services.knowledge.manual import Manual
from app.services.knowledge.reranking import Reranking
from app.services.knowledge.retrieval import Retrieval
from app.services.link.accounts import Accounts as LinkedAccounts
from app.services.lockout import Lockout
from app.services.login import Logins
from app.services.message_log.writer import MessageLogs
from app.services.mfa import Mfa
from app.services.model import Models
from app.services.oidc import Oidc
from app.services.plan import Plans
from app.services.principal import Principals
from app.services.route import Routes
from app.services.setting import ChangedSettings


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


class _People(NamedTuple):
    """What tells who somebody is."""

    tokens: Tokens
    passwords: Passwords
    lockout: Lockout
    mfa: Mfa
    logins: Logins
    principals: Principals
    auth: Auth
    oidc: Oidc
    desk_principals: DeskPrincipals
    desk: DeskAuth

    @classmethod
    def build(
        cls, settings: Settings, *, database: Database, bus: Bus, crypto: Crypto
    ) -> "_People":
        tokens = Tokens(settings.security)
        passwords = Passwords(settings.security)
        lockout = Lockout(settings)
        mfa = Mfa(settings, crypto, lockout)
        logins = Logins(lockout, mfa)
        principals = Principals(database, bus, mfa)
        desk_principals = DeskPrincipals(database, bus, mfa)
        auth = Auth(
            settings.security,
            passwords=passwords,
            tokens=tokens,
            principals=principals,
            logins=logins,
        )
        return cls(
            tokens=tokens,
            passwords=passwords,
            lockout=lockout,
            mfa=mfa,
            logins=logins,
            principals=principals,
            auth=auth,
            oidc=Oidc(settings, database=database, auth=auth, logins=logins, mfa=mfa),
            desk_principals=desk_principals,
            desk=DeskAuth(
                settings.security,
                passwords=passwords,
                tokens=tokens,
                principals=desk_principals,
                logins=logins,
            ),
        )

    def linked_accounts(self, settings: Settings) -> LinkedAccounts:
        return LinkedAccounts(
            settings, passwords=self.passwords, auth=self.auth, logins=self.logins
        )

    def accounts(self, live: LiveSettings, *, crypto: Crypto, turns: Turns) -> Accounts:
        return Accounts(
            live,
            crypto=crypto,
            passwords=self.passwords,
            auth=self.auth,
            logins=self.logins,
            turns=turns,
        )


class _Installation(NamedTuple):
    """What admins say of the installation; each process knows all of it."""

    ip_rules: IpRules
    changed_settings: ChangedSettings
    models: Models
    routes: Routes
    providers: Providers
    router: Router

    @classmethod
    def build(
        cls, live: LiveSettings, *, database: Database, bus: Bus
    ) -> "_Installation":
        settings = live.started
        catalogue = Catalogue.load(settings.models.catalogue)
        providers = connect_models(live, catalogue, Manual(database))
        router = Router(providers, retries=settings.models.retries)
        return cls(
            ip_rules=IpRules(settings.security, database=database, bus=bus),
            changed_settings=ChangedSettings(
                live, database=database, bus=bus, router=router
            ),
            models=Models(database, bus, catalogue=catalogue, providers=providers),
            routes=Routes(database, bus, router),
            providers=providers,
            router=router,
        )


class _Calls(NamedTuple):
    """What calls of models go through, and what they are paid from."""

    plans: Plans
    credits: Credits
    message_logs: MessageLogs
    books: Books
    turns: Turns
    search_index: SearchIndex
    gateway: Gateway
    asides: Asides
    embedding: Embedding
    retrieval: Retrieval

    @classmethod
    def build(
        cls,
        live: LiveSettings,
        *,
        database: Database,
        bus: Bus,
        limiter: Limiter,
        crypto: Crypto,
        router: Router,
        principals: Principals,
        storage: Storage,
    ) -> "_Calls":
        plans = Plans(database, bus)
        credits_ = Credits(database, bus=bus, limiter=limiter, plans=plans)
        message_logs = MessageLogs(live, database=database, crypto=crypto)
        books = Books(credits_, message_logs)
        search_index = SearchIndex(database)
        models = live.started.models
        embedding = Embedding(
            models.embedding, database=database, router=router, books=books
        )
        retrieval = Retrieval(
            database, embedding, Reranking(models.reranking, router=router, books=books)
        )
        return cls(
            plans=plans,
            credits=credits_,
            message_logs=message_logs,
            books=books,
            turns=Turns(
                live,
                database=database,
                router=router,
                principals=principals,
                bus=bus,
                books=books,
                attachments=Attachments(database, storage),
                retrieval=retrieval,
                index=search_index,
            ),
            search_index=search_index,
            gateway=Gateway(router=router, principals=principals, books=books),
            asides=Asides(router=router, books=books),
            embedding=embedding,
            retrieval=retrieval,
        )


@dataclass(frozen=True, slots=True)
class Runtime:
    live: LiveSettings
    database: Database
    crypto: Crypto
    bus: Bus
    limiter: Limiter
    lag: LoopLag
    tokens: Tokens
    principals: Principals
    passwords: Passwords
    lockout: Lockout
    mfa: Mfa
    logins: Logins
    oidc: Oidc
    auth: Auth
    desk_principals: DeskPrincipals
    desk: DeskAuth
    ip_rules: IpRules
    changed_settings: ChangedSettings
    linked_accounts: LinkedAccounts
    mailer: Mailer
    providers: Providers
    router: Router
    models: Models
    routes: Routes
    plans: Plans
    credits: Credits
    introspector: Introspector
    turns: Turns
    search_index: SearchIndex
    message_logs: MessageLogs
    books: Books
    gateway: Gateway
    asides: Asides
    embedding: Embedding
    retrieval: Retrieval
    storage: Storage
    files: Files
    indexing: Indexing
    accounts: Accounts
    erasure: Erasure
    shutdown: Shutdown = field(default_factory=Shutdown)

    @property
    def settings(self) -> Settings:
        """As they are now: see `core/config/live.py`."""
        return self.live.current

    @property
    def alone(self) -> bool:
        """Whether no other process serves this database: several need Redis."""
        return not self.bus.shared

    @classmethod
    def build(cls, settings: Settings) -> "Runtime":
        """Make everything, connect to nothing."""
        live = LiveSettings(settings)
        database = Database(settings)
        crypto = Crypto(settings.security)
        bus = connect(settings.redis)
        limiter = connect_limiter(settings.redis)
        people = _People.build(settings, database=database, bus=bus, crypto=crypto)
        installation = _Installation.build(live, database=database, bus=bus)
        storage = connect_storage(settings)
        calls = _Calls.build(
            live,
            database=database,
            bus=bus,
            limiter=limiter,
            crypto=crypto,
            router=installation.router,
            principals=people.principals,
            storage=storage,
        )
        files = Files.build(
            settings.storage, database=database, storage=storage, plans=calls.plans
        )
        mailer = _mailer(settings)
        indexing = Indexing(database, embedder=settings.models.embedding)
        return cls(
            live=live,
            database=database,
            crypto=crypto,
            bus=bus,
            limiter=limiter,
            lag=LoopLag(settings.limits.max_loop_lag),
            mailer=mailer,
            storage=storage,
            files=files,
            introspector=Introspector(database, people.principals, people.tokens),
            indexing=indexing,
            linked_accounts=people.linked_accounts(settings),
            accounts=people.accounts(live, crypto=crypto, turns=calls.turns),
            erasure=Erasure(
                settings.accounts,
                database=database,
                crypto=crypto,
                mailer=mailer,
                sweeper=files.sweeper,
                indexing=indexing,
            ),
            **people._asdict(),
            **installation._asdict(),
            **calls._asdict(),
        )

    async def open(self) -> None:
        """Raises ConfigError for keys that are not those of the database."""
        await require_key(self.database, self.crypto)
        self.lag.open()
        await self.bus.open()
        await self.principals.open()
        await self.plans.open()
        await self.credits.open(alone=self.alone)
        await self.changed_settings.open()
        await self.ip_rules.open()
        await self.models.open()
        await self.routes.open()
        await self.desk_principals.open()
        await self.message_logs.open()
        await self.search_index.open()
        await self.turns.open(alone=self.alone)

    async def close(self) -> None:
        await self.turns.close()
        await self.search_index.close()
        await self.message_logs.close()
        await self.routes.close()
        await self.models.close()
        await self.ip_rules.close()
        await self.changed_settings.close()
        await self.credits.close()
        await self.plans.close()
        await self.desk_principals.close()
        await self.principals.close()
        await self.providers.close()
        await self.oidc.close()
        await self.bus.close()
        await self.limiter.close()
        await self.lag.close()
        await self.database.close()


def _mailer(settings: Settings) -> Mailer:
    if settings.mail.smtp_host:
        return SmtpMailer(settings.mail)
    return FileMailer(settings.server.data_dir / "mail")
