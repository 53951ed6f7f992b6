"""What Prefect runs: its server of one machine, the flow and the worker."""

from app.services.transliteration import defer_transliteration
from app.services.zone_names import remember_zone_names

# Before any module of this package imports Prefect's library.
remember_zone_names()
defer_transliteration()
