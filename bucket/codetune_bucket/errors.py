"""What can be wrong with a bucket, as one tree; each says what to do.

BucketError            carries reason, message and hint as every failure of Codetune does
├── BucketDenied       the keys are missing or wrong, may not do it, or the clock is
├── BucketUnavailable  the endpoint can't be reached or does not work now
│   ├── BucketMissing  there is no such bucket
│   └── ObjectReplaced what was there at first is another version by now: another attempt finds that one
├── BucketFull         it takes no more
└── ObjectDamaged      what lies in it is not what was put there
    └── ObjectMissing  it is not there
"""

import re
from typing import ClassVar

from codetune_api.common import FailureReason


class BucketError(Exception):
    """A bucket does not do what it is asked.

    Args:
        message: What happened, with the values.
        hint: What to change so that it works.
    """

    reason: ClassVar[FailureReason] = "StoreUnavailable"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.message = message
        self.hint = hint


class BucketDenied(BucketError):
    """The keys are missing or wrong, or may not do it."""

    reason = "StoreDenied"


class BucketUnavailable(BucketError):
    """The endpoint can't be reached, or does not work now."""


class BucketMissing(BucketUnavailable):
    """There is no such bucket."""


class ObjectReplaced(BucketUnavailable):
    """An object was replaced between two looks at it."""

    @classmethod
    def of(cls, uri: str) -> "ObjectReplaced":
        """That it was, and what comes of it."""
        return cls(f"{uri} was replaced while it was read.", "It is tried again, with what is there then.")


class BucketFull(BucketError):
    """The bucket takes no more."""

    reason = "DiskFull"


class ObjectDamaged(BucketError):
    """What lies in the bucket is not what was put there."""

    reason = "StoreDamaged"


class ObjectMissing(ObjectDamaged):
    """The object is not there."""


_CODE = re.compile(r"<Code>([A-Za-z.]{1,64})</Code>")
_LONGEST = 300
_KEYS = "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the Secret that s3.credentialsSecretName names."
_RIGHTS = "They must be allowed to list the bucket, and to get, put and delete objects below the prefix."
_REGION = "Set s3.region in the operator's settings to the bucket's."
_DENIED = {
    "InvalidAccessKeyId": ("does not know the access key", _KEYS),
    "SignatureDoesNotMatch": ("does not accept the secret key", _KEYS),
    "ExpiredToken": ("says that the session token has expired", "Put fresh credentials into the Secret."),
    "InvalidToken": ("does not accept the session token", "Put fresh credentials into the Secret."),
    "AccessDenied": ("does not allow this to these credentials", _RIGHTS),
    "RequestTimeTooSkewed": (
        "finds the clock of this pod too far from its own",
        "Set the clocks of the nodes and of the endpoint (NTP).",
    ),
    "AuthorizationHeaderMalformed": ("expects another region", _REGION),
    "PermanentRedirect": ("has the bucket in another region", _REGION),
}
_FULL = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientCapacity"})
_BUCKET = "Create the bucket, or correct its name in store.bucket of the operator's settings or in the URI."
_FREE = "Give it more room, or delete FineTunes and Projects that nobody needs."


def explain(error: Exception, uri: str, endpoint: str) -> BucketError:
    """What an error of the library means.

    Args:
        error: As it was raised.
        uri: What it is about, `s3://bucket/key`.
        endpoint: Where it was asked for.
    """
    text = str(error)
    found = _CODE.search(text)
    code = found[1] if found else ""
    if code in _DENIED:
        said, hint = _DENIED[code]
        return BucketDenied(f"{endpoint} {said} ({code} for {uri}).", hint)
    if code in {"NoSuchBucket", "InvalidBucketName"}:
        return BucketMissing(f"{endpoint} has no bucket for {uri} ({code}).", _BUCKET)
    if code in _FULL or "507 Insufficient Storage" in text:
        return BucketFull(f"{endpoint} has no room left for {uri} ({code or 507}).", _FREE)
    if type(error).__name__ == "PreconditionError":
        return ObjectReplaced.of(uri)
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{uri} is not there.", "It was removed, or never written.")
    if type(error).__name__ in {"PermissionDeniedError", "UnauthenticatedError"}:
        # An answer to HEAD has no body, so it can't say more.
        return BucketDenied(f"{endpoint} does not allow {uri} to these credentials.", f"{_KEYS} {_RIGHTS}")
    if "/latest/api/token" in text or "/latest/meta-data" in text:
        cure = "Set s3.credentialsSecretName, or s3.serviceAccountName where the cluster gives pods an identity."
        return BucketDenied(f"There are no credentials for {uri}.", cure)
    return _find_network_trouble(text, uri, endpoint)


def _find_network_trouble(text: str, uri: str, endpoint: str) -> BucketError:
    if "certificate" in text.lower():
        cure = "Put the certificate of its authority into a ConfigMap under ca.crt and name it in s3.caConfigMapName."
        return BucketUnavailable(f"{endpoint} shows a certificate that is not trusted here.", cure)
    said = " ".join(text.partition("\n\nDebug source")[0].split())[:_LONGEST]
    cure = "Check s3.endpoint in the operator's settings, and that NetworkPolicies let the pods reach it."
    return BucketUnavailable(f"{endpoint} does not work for {uri}: {said}", cure)
