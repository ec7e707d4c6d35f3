"""Mail by SMTP (RFC 5321), each message on a connection of its own."""

from email.message import EmailMessage

import aiosmtplib
import structlog

from app.core.config import MailSettings

_log = structlog.get_logger()


class SmtpMailer:
    """Certificates are verified against the system's, or those of SSL_CERT_FILE."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    async def deliver(self, message: EmailMessage) -> None:
        """Raises aiosmtplib.SMTPException, whatever it was that failed."""
        async with self._connection() as server:
            await server.send_message(message)
        _log.info("mail sent", message_id=message["Message-ID"])

    async def check(self) -> None:
        """Connect and log in, and send nothing; raises as `deliver` does."""
        async with self._connection():
            pass

    async def forget(self, address: str) -> None:
        """What was handed on is another server's."""

    def _connection(self) -> aiosmtplib.SMTP:
        settings = self._settings
        password = settings.smtp_password
        return aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.port,
            username=settings.smtp_username or None,
            password=password.get_secret_value() if password else None,
            use_tls=settings.smtp_security == "tls",
            # True demands it: a server without it, or one in between, gets nothing.
            start_tls=settings.smtp_security == "starttls",
            timeout=settings.smtp_timeout,
        )
