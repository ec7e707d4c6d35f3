"""The page at the root: what runs here, and where to go next."""

from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.api.deps import RuntimeDep

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 42rem; margin: 10vh auto;
  padding: 0 1.5rem; }}
h1 {{ font-size: 1.9rem; margin-bottom: .2rem; }}
code, pre {{ font-family: ui-monospace, monospace; font-size: .9em; }}
pre {{ padding: 1rem; border-radius: .5rem; overflow-x: auto;
  background: color-mix(in srgb, currentColor 8%, transparent); }}
li {{ margin: .3rem 0; }}
</style>
</head>
<body>
<h1>{name}</h1>
<p>This server is running. It answers with {models}.</p>
<h2>Next</h2>
<ul>
{links}
<li><a href="/health">Health</a>: what it has to work with</li>
</ul>
<p>Ask your first question:</p>
<pre>curl {url}/api/v1/auth/register -H 'Content-Type: application/json' \\
  -d '{{"email": "you@example.com", "password": "a long pass phrase"}}'</pre>
<p>and go on with <code>docs/QUICKSTART.md</code>.</p>
</body>
</html>
"""
_DOCS = """<li><a href="/docs">API documentation</a>: try every call in the browser</li>
<li><a href="/redoc">API reference</a>: the same to read</li>"""
_MOST = 5


@router.get("/", response_class=HTMLResponse)
async def home(runtime: RuntimeDep) -> HTMLResponse:
    names = [model.name for model in await runtime.providers.list()]
    shown = ", ".join(f"<code>{escape(n)}</code>" for n in names[:_MOST])
    more = f" and {len(names) - _MOST} more" if names[_MOST:] else ""
    server = runtime.settings.server
    return HTMLResponse(
        _PAGE.format(
            name=escape(server.app_name),
            models=(shown or "no model yet") + more,
            links=_DOCS if server.shows_docs else "",
            url=escape(server.url),
        )
    )
