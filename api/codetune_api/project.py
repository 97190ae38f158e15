"""Project: which code to learn from, and what became of it."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from codetune_api.common import NAME_RULE, Conditions, Failure, ModelUri, Resource, Resources, SecretRef
from codetune_api.model import FORM, ApiModel, Digest, Name, Timestamp, list_map, rules

_NO_CREDENTIALS = (
    "!self.matches('^https?://[^/?#]*@|^ssh://[^/?#@]*:[^/?#]*@')",
    "a URL must not hold credentials, which everybody could read who may read the Project: put them into a Secret and "
    "name it in credentialsSecretRef",
)


class GitSource(ApiModel):
    """A git repository."""

    url: Annotated[
        str,
        Field(
            max_length=2048,
            pattern=r"^(https?://[^\s]+|ssh://[^\s]+|file:///[^\s]+|[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^\s]+)$",
            json_schema_extra={
                FORM: "write https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH or, on a local cluster, file:///PATH",
                **rules(_NO_CREDENTIALS),
            },
        ),
    ]
    """`https://`, `ssh://`, `user@host:path` or, on a local cluster, `file:///`. No credentials in it: use
    `credentialsSecretRef`."""
    revision: Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+@-]*$")] | None = None
    """Branch, tag or commit (all of its name, or the first digits of one that a branch or tag leads to); empty: the
    repository's default branch."""
    path: Annotated[str, Field(max_length=1024)] = ""
    """Folder inside the repository, e.g. of a monorepo: only what is below it is fetched, and paths and patterns count
    from it. Empty: all of it."""
    submodules: bool = False
    """Fetch submodules too, and those in them. One that can't be fetched is listed as rejected, with the reason."""
    lfs: bool = False
    """Fetch files that Git LFS keeps, over https, as far as a scan would read them; otherwise their pointers are listed
    as rejected."""


class ArchiveSource(ApiModel):
    """A zip or tar archive behind a direct link."""

    url: Annotated[
        str,
        Field(
            max_length=2048,
            pattern=r"^https?://[^\s]+$",
            json_schema_extra={FORM: "write https://HOST/PATH, a direct link to the archive", **rules(_NO_CREDENTIALS)},
        ),
    ]
    """Direct link to a zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst; what it is shows its content, not its name. No
    credentials in it: use `credentialsSecretRef`."""
    sha256: (
        Annotated[
            str,
            Field(
                pattern=r"^[0-9a-f]{64}$",
                max_length=128,
                json_schema_extra={FORM: "write the 64 hex digits that `sha256sum` prints, with nothing before them"},
            ),
        ]
        | None
    ) = None
    """Expected digest of the archive, in hex: any other archive is refused, and one that is here is not asked for
    again. Empty: whatever the link gives."""


class UploadSource(ApiModel):
    """Files sent with `kubectl codetune upload`."""


class VolumeSource(ApiModel):
    """Files on a claim that exists already; mounted read-only."""

    claim_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    """The PersistentVolumeClaim, in the Project's namespace."""
    path: Annotated[str, Field(max_length=1024)] = ""
    """Folder inside the volume; empty: all of it."""


class Source(ApiModel):
    """One place that code comes from: exactly one of git, archive, upload, volume."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.git), has(self.archive), has(self.upload), has(self.volume)].filter(x, x).size() == 1",
                "a source has exactly one of git, archive, upload and volume: "
                "split several into entries of their own, each with its own name",
            ),
            (
                "!has(self.volume) || !has(self.volume.path) || "
                "(!self.volume.path.startsWith('/') && !self.volume.path.contains('..'))",
                "volume.path is a path inside the volume: no leading / and no ..",
            ),
            (
                "!has(self.git) || !has(self.git.path) || "
                "(!self.git.path.startsWith('/') && !self.git.path.contains('..'))",
                "git.path is a path inside the repository: no leading / and no ..",
            ),
        )
    )

    name: Name
    """Of the source: the first part of its files' paths in the dataset."""
    git: GitSource | None = None
    archive: ArchiveSource | None = None
    upload: UploadSource | None = None
    volume: VolumeSource | None = None
    use: Literal["Train", "HoldOut"] = "Train"
    """`Train`: files are split by `holdout`. `HoldOut`: all of its files are only evaluated on, and so is every copy of
    them in another source."""
    credentials_secret_ref: SecretRef | None = None
    """For git over ssh: a `kubernetes.io/ssh-auth` Secret that also has `known_hosts`. For git over https: a
    `kubernetes.io/basic-auth` one, or an Opaque one with `token`. For an archive: a `kubernetes.io/basic-auth` Secret,
    or an Opaque one with `token` (sent as `Authorization: Bearer`) or keys `header.NAME` (each sent as the HTTP header
    NAME)."""


Pattern = Annotated[str, Field(min_length=1, max_length=1024)]


class LicenseRules(ApiModel):
    """Under which licences files may be to be trained on."""

    allow: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")]],
        Field(max_length=64),
    ] = []
    """SPDX identifiers, e.g. `[MIT, Apache-2.0]`. A file whose own header, or else the licence file nearest above it,
    says another one is rejected; where nothing says a licence, none is asked for. Empty: licences don't matter."""


class Quality(ApiModel):
    """Leaves out files that a base model finds improbable: encoded data, noise, rare formats."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.resources) || self.resources.gpus <= 1",
                "quality.resources.gpus is at most 1: a scan measures on one GPU, or with 0 on the CPU",
            )
        )
    )

    base_model: ModelUri
    """`hf://org/name@revision`, `pvc://claim/path`, `s3://bucket/path` or, on a local cluster, `file:///path`. Best the
    model that is tuned."""
    model_secret_ref: SecretRef | None = None
    """Secret with the key `token`: the model hub's access token."""
    max_loss: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Highest mean loss of a file under the model, in nats per token. Another limit measures no file again."""
    resources: Resources | None = None
    """What the scan's pod asks of its node; the memory must hold the model. Unset: the operator's `scanResources`, no
    GPU."""


class FileRules(ApiModel):
    """Which files of the sources become training data."""

    types: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=256)] = []
    """Languages (`Python`) or extensions (`.py`); empty: every programming language that was found."""
    include: Annotated[list[Pattern], Field(max_length=256)] = []
    """gitignore-style patterns; bring back files that another rule rejected."""
    exclude: Annotated[list[Pattern], Field(max_length=256)] = []
    """gitignore-style patterns; win over everything else."""
    max_bytes: Annotated[int, Field(ge=1, le=64 * 2**20)] = 512 * 2**10
    """Largest file, in bytes."""
    max_line_length: Annotated[int, Field(ge=80, le=100_000)] = 1000
    """Longest line, in characters."""
    secrets: Literal["Reject", "Redact", "Allow"] = "Reject"
    """What to do with a file that holds something like a key or a password."""
    duplicates: Literal["Reject", "Allow"] = "Reject"
    """Whether a file with the very content of another one is left out."""
    near_duplicates: Literal["Reject", "Allow", "Ignore"] = "Reject"
    """Whether a file that is nearly the same as another one is left out. `Allow` takes it, on the same side of the
    held-out split; `Ignore` does not look for any, so that a near duplicate of a held-out file, or a file that
    contains one, may be trained on."""
    licenses: LicenseRules = LicenseRules()
    """Licences that are accepted."""
    quality: Quality | None = None
    """Leave out files by their loss under a base model; unset: no file is."""


class Holdout(ApiModel):
    """Files that are never trained on; evaluation uses them."""

    fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the accepted files, chosen by a digest of their content, so that it is stable."""
    paths: Annotated[list[Pattern], Field(max_length=256)] = []
    """gitignore-style patterns of files to hold out in any case."""


def _cron_field(number: str, names: str = "") -> str:
    """A field of a cron expression: a list of `*`, values and ranges, each with an optional step."""
    value = f"({number}{names})"
    term = f"([*]|{value}(-{value})?)(/[1-9][0-9]?)?"
    return f"{term}(,{term})*"


_CRON = " +".join(
    (
        _cron_field("[0-5]?[0-9]"),
        _cron_field("[01]?[0-9]|2[0-3]"),
        _cron_field("0?[1-9]|[12][0-9]|3[01]"),
        _cron_field("0?[1-9]|1[0-2]", "|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"),
        _cron_field("[0-7]", "|(?i:sun|mon|tue|wed|thu|fri|sat)"),
    )
)
CRON_PATTERN = f"^{_CRON}$"
"""A cron expression of 5 fields; ranges that run backwards and days that no month has are found by the operator."""

Cron = Annotated[
    str,
    Field(
        max_length=100,
        json_schema_extra=rules(
            (
                "self.matches('^[^ ]+( +[^ ]+){4}$')",
                "schedule has 5 fields: minute, hour, day of month, month, day of week, e.g. `0 3 * * *` for 03:00 "
                "each day",
            ),
            (
                f"!self.matches('^[^ ]+( +[^ ]+){{4}}$') || self.matches('{CRON_PATTERN}')",
                "a field of schedule is out of range: minute 0-59, hour 0-23, day of month 1-31, month 1-12 or "
                "jan-dec, day of week 0-7 or sun-sat; each may be *, a value, a range a-b, a step /n or a list of them",
            ),
        ),
    ),
]
"""When to scan."""


class ProjectSpec(ApiModel):
    """Which code."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.sources.exists(s, !has(s.use) || s.use == 'Train')",
                "at least one source must have use: Train, else there is nothing to train on",
            )
        )
    )

    sources: Annotated[list[Source], Field(min_length=1, max_length=64, json_schema_extra=list_map("name"))]
    """Where the code comes from; each entry has exactly one of git, archive, upload and volume."""
    files: FileRules = FileRules()
    holdout: Holdout = Holdout()
    schedule: Cron | None = None
    """When to pull and scan by itself: a cron expression of 5 fields, e.g. `0 3 * * mon-fri`. A time that is missed
    while the operator is down is made up for by one scan. Unset: only when spec or the annotation
    `codetune.dev/rescan` changes."""
    time_zone: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$")] = "Etc/UTC"
    """IANA name of the time zone of `schedule`, e.g. `Europe/Berlin`."""
    suspend: bool = False
    """Stops pulling and scanning; the data that is there stays usable. Scheduled times that pass are left out."""


class SourceStatus(ApiModel):
    """What came from one source."""

    name: str
    commit: str = ""
    """The git commit that was scanned."""
    digest: Digest | None = None
    """SHA-256 of the archive that was scanned; of archives only."""
    files: int = 0
    bytes: int = 0
    synced_at: Timestamp | None = None
    reason: str = ""
    """Why it could not be fetched, or not in full, e.g. `SourceUnavailable`; empty when it could."""
    message: str = ""
    """What to know about this source: what is wrong with it and how to mend it, or empty."""


class FileType(ApiModel):
    """One row of the file type filter."""

    type: str
    extensions: list[str] = []
    files: int = 0
    accepted: int = 0
    rejected: int = 0
    bytes: int = 0
    selected: bool = True
    """Whether `files.types` lets this type through."""


class FileCounts(ApiModel):
    """How many files went where."""

    total: int = 0
    accepted: int = 0
    rejected: int = 0
    trained: int = 0
    held_out: int = 0
    bytes: int = 0
    """Size of the accepted files."""


class Rejection(ApiModel):
    """How many files one rule rejected."""

    reason: str
    files: int
    examples: Annotated[list[str], Field(max_length=3)] = []


ProjectPhase = Literal["Pending", "Scanning", "Ready", "Suspended", "Failed", "Deleting"]


class ProjectStatus(ApiModel):
    """What the last scan found."""

    phase: ProjectPhase | None = None
    """Where it stands, in one word; the condition `Ready` says more."""
    observed_generation: int | None = None
    conditions: Conditions = []
    revision: Digest | None = None
    """Digest of the dataset: same sources and same rules give the same digest."""
    short_revision: str | None = None
    """The first 12 digits of `revision`, for people."""
    uri: str | None = None
    """Where the dataset is in the namespace's artifact store."""
    types: str | None = None
    """The types with the most accepted files, for people: `Python 812, Go 40, 3 more`."""
    sources: Annotated[list[SourceStatus], Field(json_schema_extra=list_map("name"))] = []
    """What came from each source, and what is wrong with it."""
    file_types: Annotated[list[FileType], Field(json_schema_extra=list_map("type"))] = []
    """The files of each type, and whether `files.types` lets it through."""
    files: FileCounts | None = None
    rejections: Annotated[list[Rejection], Field(json_schema_extra=list_map("reason"))] = []
    """How many files each rule rejected, with examples; `kubectl codetune files` lists all."""
    job_name: str | None = None
    config_digest: str | None = None
    """What the last finished scan was made from: sources, rules, rescan annotation, scheduled time and retries."""
    rules_digest: str | None = None
    """What the dataset was made from: sources, rules and holdout. When spec has others, no FineTune starts on it."""
    fetch_digest: str | None = None
    """What the sources were fetched for: sources, rescan annotation, scheduled time and retries. While it stays the
    same, new rules are applied to what was fetched."""
    scanned_at: Timestamp | None = None
    """When the last scan that ended well did."""
    last_scheduled_at: Timestamp | None = None
    """The last time of `schedule` that a scan was started for."""
    next_scan_at: Timestamp | None = None
    """The next time of `schedule`."""
    retries: int | None = None
    """How many scans were started by themselves because the one before them failed in part or in whole."""
    failure: Failure | None = None
    """Why there is no new dataset: the last scan failed, or no other one can be made."""


class Project(Resource):
    """Which code to learn from."""

    model_config = ConfigDict(json_schema_extra=NAME_RULE)

    spec: ProjectSpec
    status: ProjectStatus = ProjectStatus()
