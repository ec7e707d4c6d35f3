from pydantic import SecretStr

from app.core.config import GROUPS, Settings
from app.core.env_example import plain


def explain(settings: Settings) -> list[dict[str, str]]:
    """Every setting as {name, area, value, source, meaning}; secrets are masked."""
    return [
        {
            "name": str(info.alias),
            "area": area,
            "value": _shown(getattr(getattr(settings, area), field)),
            "source": settings.sources.get(str(info.alias), "default"),
            "meaning": str(info.description),
        }
        for area, group in GROUPS.items()
        for field, info in group.model_fields.items()
    ]


def _shown(value: object) -> str:
    return "********" if isinstance(value, SecretStr) else plain(value)
