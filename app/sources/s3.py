"""S3, and servers that speak its language, opened with a settled key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store

from app.sources.access import Dialect, client_options, retry_config
from app.sources.aws import AwsKey, AwsSettings

if TYPE_CHECKING:
    # The library declares its types for checkers alone.
    from obstore.store import S3Credential

    from app.sources.forward import Gate

DEFAULT_REGION = "us-east-1"
S3_DIALECT = Dialect(
    scheme="s3",
    service="S3 service",
    bucket="bucket",
    endpoint_remedy="Check endpoint_url or AWS_ENDPOINT_URL; a console often has another port than the service.",
    key_remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give --credentials FILE.",
    missing_bucket=frozenset({"NoSuchBucket"}),
    denied=frozenset(
        {
            "AccessDenied",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidToken",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
        }
    ),
    another_region=frozenset(
        {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
    ),
)


@dataclass(frozen=True)
class S3Access:
    """Opens buckets of an S3 service; see `StoreAccess`."""

    settings: AwsSettings
    gate: Gate | None = None

    @property
    def dialect(self) -> Dialect:
        """The words of S3."""
        return S3_DIALECT

    def open(self, bucket: str) -> S3Store:
        """A store on `bucket`."""
        settings = self.settings
        config: dict[str, Any] = dict(settings.ambient)
        if settings.endpoint_url is not None:
            # Both names: of the two the library prefers the one that the environment may have set.
            config |= {"endpoint": settings.endpoint_url, "aws_endpoint_url_s3": settings.endpoint_url}
        return S3Store(
            bucket,
            config={
                **config,
                "region": settings.region or DEFAULT_REGION,
                # Other servers have one name for all buckets; a bucket with a dot fits no certificate of Amazon's.
                "virtual_hosted_style_request": settings.endpoint_url is None and "." not in bucket,
            },  # type: ignore[arg-type]  # a dictionary of known names
            client_options=client_options(
                settings.patience_s,
                allow_http=(settings.endpoint_url or "").startswith("http://"),
                gate=self.gate,
            ),
            retry_config=retry_config(settings.patience_s),
            credential_provider=_FixedKey(settings.key) if settings.key else None,
        )


@dataclass(frozen=True)
class _FixedKey:
    """Gives the key as a whole: set one by one, a session token of the environment would be mixed in."""

    key: AwsKey

    def __call__(self) -> S3Credential:
        return {
            "access_key_id": self.key.access_key_id,
            "secret_access_key": self.key.secret_access_key,
            "token": self.key.session_token,
            "expires_at": None,
        }
