"""A real SMTP server (aiosmtpd), which keeps what it is given."""

import asyncio
import datetime as dt
import ssl
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USERNAME, PASSWORD = "workroom", "an app password"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for `localhost` that signs itself, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "smtp.pem", folder / "smtp.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return public, private


@dataclass
class FakeSmtp:
    """`refusals` are replies given before messages are taken, such as `451 later`.

    It listens within `async with`, and takes no message without a login where it is
    encrypted.
    """

    folder: Path
    security: Literal["starttls", "tls", "none"] = "starttls"
    refusals: list[str] = field(default_factory=list)
    messages: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    tries: int = 0
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def __aenter__(self) -> Self:
        self.certificate, key = certificate(self.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        options: dict[str, dict[str, Any]] = {
            "starttls": {"tls_context": context, "require_starttls": True},
            "tls": {"auth_require_tls": False},  # it cannot see that it has TLS
            "none": {},
        }
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(
                self,
                hostname="localhost",
                loop=loop,
                authenticator=self._login,
                **options[self.security],
            ),
            "127.0.0.1",
            0,
            ssl=context if self.security == "tls" else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def variables(self) -> dict[str, str]:
        """The settings that lead to it."""
        found = {
            "SMTP_HOST": "localhost",
            "SMTP_PORT": str(self.port),
            "SMTP_SECURITY": self.security,
            "MAIL_FROM": "Workroom <no-reply@example.com>",
        }
        if self.security != "none":
            found |= {"SMTP_USERNAME": USERNAME, "SMTP_PASSWORD": PASSWORD}
        return found

    async def handle_DATA(  # noqa: N802 - the library's name
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.tries += 1
        self.tried.set()
        if self.security != "none" and not session.authenticated:
            return "530 log in first"
        if self.refusals:
            return self.refusals.pop(0)
        assert isinstance(envelope.content, bytes)
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        assert envelope.rcpt_tos == [parsed["To"]]
        self.messages.append(parsed)
        self.encrypted.append(session.ssl is not None or self.security == "tls")
        return "250 taken"

    def _login(
        self, _server: SMTP, _session: Session, _envelope: Envelope, *given: Any
    ) -> AuthResult:
        self.tried.set()
        right = LoginPassword(USERNAME.encode(), PASSWORD.encode())
        return AuthResult(success=given[-1] == right, handled=False)
