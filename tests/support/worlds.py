"""Where a scenario plays: files on disk or in S3, tables in the SQLite or the REST catalog."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import Home
from tests.support.seaweed import Seaweed


@dataclass(frozen=True)
class World:
    """A landing place, a home, and the table that a scenario loads."""

    home: Home
    source: str
    table: str
    folder: Path | None = None
    seaweed: Seaweed | None = None
    bucket: str = ""

    def land(self, files: Mapping[str, bytes]) -> None:
        """Put files below the landing place."""
        if self.folder is None:
            assert self.seaweed is not None
            self.seaweed.put(self.bucket, {f"landing/{name}": data for name, data in files.items()})
            return
        for name, data in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def rest_environ(seaweed: Seaweed) -> dict[str, str]:
    """The configuration of the catalog `rest`, the ecosystem's way."""
    prefix = "PYICEBERG_CATALOG__REST__"
    keys = seaweed.credentials
    return {
        f"{prefix}TYPE": "rest",
        f"{prefix}URI": seaweed.rest_uri,
        f"{prefix}WAREHOUSE": seaweed.rest_warehouse,
        f"{prefix}CREDENTIAL": f"{keys['aws_access_key_id']}:{keys['aws_secret_access_key']}",
        f"{prefix}OAUTH2_SERVER_URI": f"{seaweed.rest_uri}/v1/oauth/tokens",
        f"{prefix}S3__ENDPOINT": seaweed.endpoint,
        f"{prefix}S3__ACCESS_KEY_ID": keys["aws_access_key_id"],
        f"{prefix}S3__SECRET_ACCESS_KEY": keys["aws_secret_access_key"],
        f"{prefix}S3__REGION": keys["aws_region"],
    }


def make_world(kind: str, tmp_path: Path, seaweed: Seaweed) -> World:
    """A world by name: `local-local`, `s3-local`, `local-rest` or `s3-rest` (source, then catalog)."""
    source, catalog = kind.split("-")
    folder = tmp_path / "home"
    folder.mkdir()
    home = Home(folder)
    table = f"scenarios.t_{uuid.uuid4().hex[:12]}"
    if catalog == "rest":
        home.environ |= rest_environ(seaweed)
        table = f"rest.{table}"
    if source == "local":
        landing = tmp_path / "landing"
        landing.mkdir()
        return World(home, str(landing), table, folder=landing)
    home.environ |= seaweed.environ
    bucket = seaweed.create_bucket(f"w-{uuid.uuid4().hex[:16]}")
    return World(home, f"s3://{bucket}/landing/", table, seaweed=seaweed, bucket=bucket)
