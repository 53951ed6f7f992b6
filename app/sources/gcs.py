"""Google Cloud Storage, opened with a settled key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from obstore.store import GCSStore

from app.sources.access import Dialect, client_options, retry_config
from app.sources.google import GoogleSettings

if TYPE_CHECKING:
    from app.sources.forward import Gate

ENDPOINT = "https://storage.googleapis.com"
GCS_DIALECT = Dialect(
    scheme="gs",
    service="Google Cloud Storage service",
    bucket="bucket",
    endpoint_remedy="Check endpoint_url or STORAGE_EMULATOR_HOST.",
    key_remedy="Set GOOGLE_APPLICATION_CREDENTIALS, or give service_account_key by --credentials FILE.",
    missing_bucket=frozenset({"NoSuchBucket"}),
    denied=frozenset(
        {
            "AccessDenied",
            "AccountProblem",
            "AuthenticationRequired",
            "ExpiredToken",
            "InvalidSecurity",
            "NotSignedUp",
            "SignatureDoesNotMatch",
            "UserProjectMissing",
        }
    ),
)


@dataclass(frozen=True)
class GoogleAccess:
    """Opens buckets of Google Cloud Storage; see `StoreAccess`."""

    settings: GoogleSettings
    gate: Gate | None = None

    @property
    def dialect(self) -> Dialect:
        """The words of Google Cloud Storage."""
        return GCS_DIALECT

    def open(self, bucket: str) -> GCSStore:
        """A store on `bucket`."""
        settings = self.settings
        endpoint = settings.endpoint_url or ENDPOINT
        config: dict[str, Any] = {"base_url": endpoint, "skip_signature": settings.anonymous}
        if settings.service_account_key:
            config["service_account_key"] = settings.service_account_key
        elif settings.key_file:
            config["application_credentials"] = settings.key_file
        return GCSStore(
            bucket,
            config=config,  # type: ignore[arg-type]  # a dictionary of known names
            client_options=client_options(
                settings.patience_s, allow_http=endpoint.startswith("http://"), gate=self.gate
            ),
            retry_config=retry_config(settings.patience_s),
        )
