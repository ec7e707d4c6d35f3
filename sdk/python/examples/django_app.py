"""Django in one file: `python django_app.py runserver`, or `uvicorn django_app:app`."""

import os
import sys

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "only for this example"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["workroom_auth.django.WorkroomMiddleware"],
    WORKROOM_AUTH={
        "url": os.environ["WORKROOM_URL"],
        "service_key": os.environ["WORKROOM_SERVICE_KEY"],
        "cache_seconds": float(os.environ.get("CACHE_SECONDS", "10")),
        "public": ["/health"],
    },
)
app = get_asgi_application()


from workroom_auth.django import auth, require  # noqa: E402 - settings come first


def health(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


async def me(request: HttpRequest) -> JsonResponse:
    who = request.identity
    return JsonResponse({"id": who.sub, "username": who.username, "plan": who.plan})


@require("ext:reports")
def write_report(request: HttpRequest) -> JsonResponse:
    auth().report(request.identity, "reports")
    return JsonResponse({"written": 1})


urlpatterns = [
    path("health", health),
    path("me", me),
    path("reports", write_report),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
