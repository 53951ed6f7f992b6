"""The names of this machine's time zones, read once."""

from __future__ import annotations

import functools
import zoneinfo


def remember_zone_names() -> None:
    """Have `zoneinfo.available_timezones` look once in this process. Again: no change.

    Prefect's library asks for all names whenever it reads a schedule, and each time some 600 files are opened: five
    milliseconds for every deployment in every answer, in its server as in its clients. To be called before the library
    is imported, which keeps the function. Zones that come later are known after the next start.
    """
    if not hasattr(zoneinfo.available_timezones, "cache_info"):
        zoneinfo.available_timezones = functools.cache(zoneinfo.available_timezones)
