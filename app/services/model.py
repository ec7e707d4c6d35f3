from app.integrations.llm.base import ModelInfo
from app.integrations.llm.registry import Providers
from app.schemas.model import ModelRead, PricesRead


async def listing(providers: Providers) -> list[ModelRead]:
    """What can be used now, and after it what could be once its provider is set up."""
    usable = [_read(model, available=True) for model in await providers.list()]
    return usable + [
        _read(model, available=False) for model in providers.unconfigured()
    ]


def _read(model: ModelInfo, *, available: bool) -> ModelRead:
    return ModelRead(
        name=model.name,
        provider=model.provider,
        capabilities=sorted(model.capabilities),
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        prices=model.prices and PricesRead.model_validate(model.prices),
        available=available,
    )
