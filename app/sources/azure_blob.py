"""Azure Blob Storage, opened with a settled account and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from obstore.store import AzureStore

from app.sources.access import Dialect, client_options, retry_config
from app.sources.azure import AzureSettings

if TYPE_CHECKING:
    # The library declares its types for checkers alone.
    from obstore.store import AzureCredential

    from app.sources.forward import Gate

AZURE_DIALECT = Dialect(
    scheme="az",
    service="Blob service",
    bucket="container",
    endpoint_remedy="Check endpoint_url or AZURE_STORAGE_ENDPOINT.",
    key_remedy="Set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or give --credentials FILE.",
    missing_bucket=frozenset({"ContainerNotFound", "ContainerBeingDeleted"}),
    denied=frozenset(
        {
            "AccountIsDisabled",
            "AuthenticationFailed",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "InsufficientAccountPermissions",
            "InvalidAuthenticationInfo",
            "KeyBasedAuthenticationNotPermitted",
            "NoAuthenticationInformation",
            "PublicAccessNotPermitted",
        }
    ),
)


@dataclass(frozen=True)
class AzureAccess:
    """Opens containers of a storage account; see `StoreAccess`."""

    settings: AzureSettings
    gate: Gate | None = None

    @property
    def dialect(self) -> Dialect:
        """The words of Azure."""
        return AZURE_DIALECT

    def open(self, bucket: str) -> AzureStore:
        """A store on the container `bucket`."""
        settings = self.settings
        endpoint = settings.endpoint_url or f"https://{settings.account_name}.blob.core.windows.net"
        config: dict[str, Any] = {"azure_skip_signature": "false"}
        config |= {name.lower(): value for name, value in settings.ambient}
        return AzureStore(
            bucket,
            config={
                **config,
                "account_name": settings.account_name,
                "endpoint": endpoint,
                "use_emulator": False,
                "use_fabric_endpoint": False,
            },  # type: ignore[arg-type]  # a dictionary of known names
            client_options=client_options(
                settings.patience_s, allow_http=endpoint.startswith("http://"), gate=self.gate
            ),
            retry_config=retry_config(settings.patience_s),
            credential_provider=_fixed(settings),
        )


def _fixed(settings: AzureSettings) -> _FixedKey | None:
    return _FixedKey(settings) if settings.account_key or settings.sas_token else None


@dataclass(frozen=True)
class _FixedKey:
    """Gives the one key there is: set in the configuration, one of the environment could come before it."""

    settings: AzureSettings = field(repr=False)

    def __call__(self) -> AzureCredential:
        if self.settings.account_key:
            return {"access_key": self.settings.account_key, "expires_at": None}
        return {"sas_token": self.settings.sas_token or "", "expires_at": None}
