from app.core.queue import task
from app.services import mail
from app.services.runtime import Runtime


@task("mail.send")
async def send(
    runtime: Runtime,
    *,
    template: str,
    to: str,
    message_id: str,
    values: dict[str, str | float],
    user_id: str | None,  # noqa: ARG001 - for who looks for a person's rows
) -> None:
    await runtime.mailer.deliver(
        mail.compose(
            runtime.settings,
            template,
            to=to,
            message_id=message_id,
            values=values,
        )
    )
