from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped


class ModelRoute(Identified, Timestamped, Base):
    """A name that stands for several deployments of models.

    `deployments` are objects with the fields of `schemas.route.DeploymentGiven`;
    `fallbacks` are names of models or routes.
    """

    __tablename__ = "routes"

    name: Mapped[str] = mapped_column(String(200), unique=True)
    deployments: Mapped[list[dict[str, Any]]]
    fallbacks: Mapped[list[Any]] = mapped_column(JSON())
