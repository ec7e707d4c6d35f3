"""All that is done with files, made in one place."""

from typing import NamedTuple, Self

from app.core.config import StorageSettings
from app.core.database import Database
from app.integrations.parsing.process import Parser
from app.integrations.scanning.base import NoScanner
from app.integrations.scanning.clamd import Clamd
from app.integrations.storage.base import Storage
from app.services.file.catchup import CatchUp
from app.services.file.inspection import Inspection
from app.services.file.sweeping import Sweeper
from app.services.file.uploads import Uploads
from app.services.plan import Plans


class Files(NamedTuple):
    uploads: Uploads
    inspection: Inspection
    catchup: CatchUp
    sweeper: Sweeper
    scanned: bool
    """Whether files go through a virus scanner."""

    @classmethod
    def build(
        cls,
        settings: StorageSettings,
        *,
        database: Database,
        storage: Storage,
        plans: Plans,
    ) -> Self:
        clamd = settings.clamd_address
        inspection = Inspection(
            database=database,
            storage=storage,
            parser=Parser(settings),
            scanner=Clamd(clamd) if clamd else NoScanner(),
        )
        return cls(
            uploads=Uploads(settings, database=database, storage=storage, plans=plans),
            inspection=inspection,
            catchup=CatchUp(database=database, inspection=inspection),
            sweeper=Sweeper(database=database, storage=storage),
            scanned=bool(clamd),
        )
