"""What one user has, to be named in requests."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from ipaddress import ip_network
from itertools import cycle
from secrets import token_hex
from typing import get_args
from uuid import UUID

from sqlalchemy import update
from uuid_utils.compat import uuid7

from app.core.database import utcnow
from app.models import (
    File,
    FileText,
    IpRule,
    Job,
    MailLink,
    Message,
    MessageLog,
    ModelRoute,
    RegisteredModel,
    User,
)
from app.schemas.desk import AdminCreate, Permission, StaffCreate
from app.services.audit import SYSTEM
from app.services.file import places
from app.services.link import links
from tests.client import Client
from tests.conftest import Server, desk_form

PASSWORD = "a long pass phrase"
PERMISSIONS = get_args(Permission)


def keeper(name: str) -> str:
    """The username of the admin, and of the staff, that go with somebody's things."""
    return f"keeper-{name}"


@dataclass(frozen=True)
class Things:
    """What one user has, to be named in requests."""

    client: Client
    name: str
    user: str
    session: str
    chat: str
    question: str
    reply: str
    """It was stopped, so it can be continued."""
    file: str
    """It is ready, and has a text and a thumbnail."""
    project: str
    document: str
    """A text in the project."""
    member: str
    """The id of somebody who may read the project."""
    newcomer: str
    """The e-mail address of somebody who is not in it."""
    apikey: str
    """It was rotated, and the one of before works, too."""
    link: str
    """The token by which everybody may read the chat."""
    deleted: str
    """The id of a user who was deleted."""
    admin: Client
    """Has every permission."""
    staff: Client
    """Of level 3."""
    admin_account: str
    """The id of an admin who may do nothing."""
    staff_account: str
    """The id of a member of the staff, of level 1."""
    suspended: str
    """The id of a user who is."""
    job: str
    """It is dead."""
    message_log: str
    ip_rule: str
    """It denies addresses that nobody has."""
    service: Client
    """An external application with a key of every scope."""
    servicekey: str
    """The id of another service key."""
    registered: str
    """The name of a model that an admin registered, and no chat names."""
    route: str
    """The name of one that no chat names."""
    verify_link: str = ""
    reset_link: str = ""
    """Tokens of mailed links."""
    plan: str = "team"
    """That nobody has."""
    model: str = "guide/manual"
    """That everybody may use."""

    @property
    def email(self) -> str:
        return f"{self.name}@example.com"

    @property
    def secrets(self) -> set[str]:
        """What no answer to anybody else may hold."""
        ids = {
            self.user,
            self.session,
            self.chat,
            self.question,
            self.reply,
            self.file,
            self.apikey,
            self.project,
            self.document,
            self.member,
        }
        words = {f"The chat of {self.name}", f"asked by {self.name}"}
        words |= {f"The project of {self.name}", f"a text of {self.name}"}
        return ids | words | {self.email, f"Notes of {self.name}"}


async def mailed_link(server: Server, purpose: links.Purpose, email: str) -> str:
    """The token of a link as it would be mailed."""
    async with server.runtime.database.unit_of_work() as session:
        link = MailLink(
            purpose=purpose, email=email, expires_at=utcnow() + timedelta(hours=1)
        )
        session.add(link)
        await session.flush()
        written = await links.write(session, server.runtime.settings, link.id)
    assert written is not None
    return written.link.partition("#token=")[2]


async def _dead_job(server: Server) -> str:
    job = Job(name="chat.purge", args={}, state="dead")
    async with server.runtime.database.unit_of_work() as session:
        session.add(job)
    return str(job.id)


async def _suspended(server: Server) -> str:
    user = User(
        email=f"{token_hex(8)}@example.com", password_hash="!", status="suspended"
    )
    async with server.runtime.database.unit_of_work() as session:
        session.add(user)
    return str(user.id)


async def _message_log(server: Server, user_id: str) -> str:
    log = MessageLog(
        id=uuid7(),
        user_id=UUID(user_id),
        username="-",
        kind="chat",
        model="guide/manual",
        messages=None,
        input_tokens=1,
        output_tokens=1,
        credits=0,
        latency_ms=1,
        status="complete",
    )
    async with server.runtime.database.unit_of_work() as session:
        session.add(log)
    return str(log.id)


async def _file(server: Server, user_id: str, name: str) -> str:
    content = f"Notes of {name}"
    file = File(
        user_id=UUID(user_id),
        name=f"{content}.txt",
        mime="text/plain",
        kind="document",
        size=len(content),
        sha256=sha256(content.encode()).hexdigest(),
        status="ready",
        has_text=True,
        has_thumbnail=True,
        scaled_size=len(content),
    )
    async with server.runtime.database.unit_of_work() as session:
        session.add(file)
        await session.flush()
        session.add(FileText(file_id=file.id, text=content, pages=[]))
    for place in (places.original, places.thumbnail, places.scaled):

        async def pieces() -> AsyncIterator[bytes]:
            yield content.encode()

        await server.runtime.storage.put(place(file.user_id, file.id), pieces())
    return str(file.id)


async def _account(server: Server, name: str) -> User:
    user = User(email=f"{name}@example.org", password_hash="!")
    async with server.runtime.database.unit_of_work() as session:
        session.add(user)
    return user


async def _project(server: Server, client: Client, name: str) -> dict[str, str]:
    """A project with a document and a member."""
    made = await client.post("/projects", json={"name": f"The project of {name}"})
    path = f"/projects/{made.json['id']}"
    text = {"title": "A note", "text": f"The guide: a text of {name}."}
    document = await client.post(f"{path}/documents", json=text)
    member = await _account(server, f"member-{name}")
    await client.post(f"{path}/members", json={"email": member.email})
    newcomer = await _account(server, f"newcomer-{name}")
    return {
        "project": made.json["id"],
        "document": document.json["id"],
        "member": str(member.id),
        "newcomer": newcomer.email,
    }


async def _ip_rule(server: Server) -> str:
    rule = IpRule(scope="service", action="deny", network=nobodys_address())
    async with server.runtime.database.unit_of_work() as session:
        session.add(rule)
    return str(rule.id)


async def _registered(server: Server, name: str) -> str:
    model = RegisteredModel(name=f"guide/of-{name}", enabled=True)
    async with server.runtime.database.unit_of_work() as session:
        session.add(model)
    return model.name


async def _route(server: Server, name: str) -> str:
    route = ModelRoute(
        name=f"of-{name}", deployments=[{"model": "guide/manual"}], fallbacks=[]
    )
    async with server.runtime.database.unit_of_work() as session:
        session.add(route)
    return route.name


_NOBODYS = cycle(ip_network("198.18.0.0/15").hosts())


def nobodys_address() -> str:
    """An address for benchmarks (RFC 2544), another one each time."""
    return f"{next(_NOBODYS)}/32"


async def make_things(server: Server, name: str) -> Things:
    """A new user with a chat in which a reply was stopped."""
    client = await server.client(name)
    chat = await client.chat(title=f"The chat of {name}")
    events = await client.ask(chat, f"What is the guide? asked by {name}")
    reply = events[0].data["message_id"]
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(
            update(Message).where(Message.id == UUID(reply)).values(status="stopped")
        )
    share = await client.post(f"/chats/{chat}/share")
    email = f"{name}@example.com"
    sessions = await client.get("/auth/sessions")
    key = await client.post("/apikeys", json={"name": "a script"})
    await client.post(f"/apikeys/{key.json['id']}/rotate", json={"grace_seconds": 600})
    me = await client.get("/auth/me")
    return Things(
        client=client,
        name=name,
        user=me.json["id"],
        session=sessions.json["items"][0]["id"],
        chat=chat,
        question=events[0].data["user_message_id"],
        reply=reply,
        file=await _file(server, me.json["id"], name),
        **await _project(server, client, name),
        apikey=key.json["id"],
        link=share.json["token"],
        deleted=str(await _deleted_user(server, f"gone-{name}")),
        admin=await server.admin(*PERMISSIONS, name=keeper(name)),
        staff=await server.staff(3, name=keeper(name)),
        verify_link=await mailed_link(server, "verify", email),
        reset_link=await mailed_link(server, "reset", email),
        admin_account=await server.desk_account(
            AdminCreate(**desk_form(f"clerk-{name}"), permissions=frozenset())
        ),
        staff_account=await server.desk_account(
            StaffCreate(**desk_form(f"clerk-{name}"), level=1)
        ),
        suspended=await _suspended(server),
        job=await _dead_job(server),
        message_log=await _message_log(server, me.json["id"]),
        ip_rule=await _ip_rule(server),
        service=await server.service("introspect", "report"),
        registered=await _registered(server, name),
        route=await _route(server, name),
        servicekey=str((await server.service_key("introspect")).id),
    )


async def _deleted_user(server: Server, name: str) -> UUID:
    async with server.runtime.database.unit_of_work() as session:
        user = User(email=f"{name}@example.com", password_hash="")
        session.add(user)
        await session.flush()
        await server.runtime.accounts.delete(session, SYSTEM, user.id)
    return user.id
