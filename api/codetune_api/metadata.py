"""Every label, annotation, finalizer and field owner that Codetune writes, once."""

GROUP = "codetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "codetune"

FIELD_MANAGER = "codetune"
"""Field owner of everything that the operator applies server-side."""

LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_PROJECT = f"{GROUP}/project"
LABEL_FINETUNE = f"{GROUP}/finetune"
LABEL_MODELDEPLOYMENT = f"{GROUP}/modeldeployment"
LABEL_TEAM = f"{GROUP}/team"

LABEL_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
"""Kueue's own label: a Job that carries it is queued by Kueue."""

ANNOTATION_RESCAN = f"{GROUP}/rescan"
"""On a Project: any new value starts a pull and scan at once."""

ANNOTATION_STORE_UNTIL = f"{GROUP}/store-until"
"""On a Project or FineTune: RFC 3339 time until which the namespace's store service is wanted, at most a day ahead."""

ANNOTATION_MERGE = f"{GROUP}/merge"
"""On a FineTune: `CHECKPOINT` or `CHECKPOINT@ANYTHING`; any new value has that adapter merged into the base model."""

ANNOTATION_CONFIG_DIGEST = f"{GROUP}/config-digest"
"""On a child: digest of the configuration that it was made from."""

FINALIZER = f"{GROUP}/artifacts"
"""Held until the artifacts of a resource are removed from the store (or are to be retained)."""

ARTIFACTS_CLAIM = "codetune-artifacts"
"""PersistentVolumeClaim that is the artifact store of a namespace."""

STORE_SERVICE = "codetune-store"
"""Deployment and Service of a namespace's store service."""
STORE_PORT = 8080
STORE_TOKEN_SECRET = "codetune-store-token"
"""Secret with the token that the store service asks for, under the key `token`."""
STORE_TOKEN_KEY = "token"
STORE_TOKEN_HEADER = "X-Codetune-Token"
"""Carries that token: the API server keeps `Authorization` to itself and passes other headers on."""

API_KEY_HEADER = "X-Api-Key"
"""Carries a client's API key to a server or gateway where `Authorization` is not there, for the same reason."""

MAX_NAME_LENGTH = 63 - len("-purge-") - 8
"""Longest name of a resource: a child adds at most `-purge-` and 8 hex digits, and names end up in labels (63)."""


def labels(component: str, instance: str, own: dict[str, str]) -> dict[str, str]:
    """The common labels of a child: what it is, whose it is, plus Codetune's own label for the owner."""
    return {
        LABEL_NAME: "codetune",
        LABEL_INSTANCE: instance,
        LABEL_COMPONENT: component,
        LABEL_PART_OF: "codetune",
        LABEL_MANAGED_BY: FIELD_MANAGER,
        **own,
    }
