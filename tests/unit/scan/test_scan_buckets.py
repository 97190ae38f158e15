"""A scan whose store is a bucket: the dataset is there with its manifest, and the next scan takes up what is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import ScanResult
from codetune_bucket.bucket import Bucket
from codetune_bucket.mirroring import Mirror
from codetune_trainer.reporting import Reporter
from codetune_trainer.scan.recipe import scan

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

Scan = Callable[..., ScanResult]
PROJECT = "team/projects/code"
FILES = {f"m{number}.py": f"def m{number}(a):\n    return a * {number}\n" for number in range(12)}


@pytest.fixture
def scan_in_pod(workshop: "Workshop", pod: Callable[[], Mirror]) -> Scan:
    """A scan in a new pod, by this very process."""

    def run(**rules: Any) -> ScanResult:
        mirror = pod()
        places = replace(workshop.places, store=mirror.root, mirrored=mirror)
        return scan(workshop.config(**rules), places, Reporter("n" * 16, workshop.events), workers=1)

    return run


def folders(bucket: Bucket) -> set[str]:
    return bucket.folders(PROJECT)


def test_a_dataset_is_in_the_bucket_with_everything_that_its_manifest_names(
    workshop: "Workshop", scan_in_pod: Scan, bucket: Bucket
) -> None:
    workshop.repository().commit(FILES)
    result = scan_in_pod()

    assert result.uri == f"{PROJECT}/{result.revision.removeprefix('sha256:')}"
    found = {entry.path.removeprefix(f"{result.uri}/"): entry.bytes for entry in bucket.list(result.uri)}
    assert found.keys() == {"manifest.json", "files.jsonl", "report.jsonl"}
    manifest = json.loads(bucket.read(f"{result.uri}/manifest.json", 0, found["manifest.json"]))
    assert {name: entry["bytes"] for name, entry in manifest["artifacts"].items()} == {
        name: size for name, size in found.items() if name != "manifest.json"
    }


def test_the_next_scan_judges_only_what_is_new(workshop: "Workshop", scan_in_pod: Scan, judged: list[str]) -> None:
    repository = workshop.repository()
    repository.commit(FILES)
    first = scan_in_pod()
    judged.clear()
    assert scan_in_pod().revision == first.revision
    assert judged == []

    repository.commit({"more.py": "def more(a):\n    return a + 1\n"})
    second = scan_in_pod()
    assert judged == ["more.py"]
    assert second.files.accepted == first.files.accepted + 1


def test_what_is_damaged_in_the_bucket_is_found_out_anew(
    workshop: "Workshop", scan_in_pod: Scan, bucket: Bucket, judged: list[str]
) -> None:
    import obstore

    workshop.repository().commit(FILES)
    first = scan_in_pod()
    found = bucket.look(f"{PROJECT}/verdicts/records")
    assert found is not None
    assert found.sha256 is not None
    key = bucket.location.key(found.path)
    obstore.put(bucket._store, key, b"x" * found.bytes, attributes={"sha256": found.sha256})
    judged.clear()
    assert scan_in_pod().revision == first.revision
    assert len(judged) == len(FILES)


def test_datasets_that_nobody_uses_go_and_the_others_stay(
    workshop: "Workshop", scan_in_pod: Scan, bucket: Bucket
) -> None:
    repository = workshop.repository()
    revisions = []
    for number in range(3):
        repository.commit({**FILES, "last.py": f"def last(a):\n    return a - {number}\n"})
        revisions.append(scan_in_pod(keep=revisions[:1]).revision)
    kept = {revision.removeprefix("sha256:") for revision in (revisions[0], revisions[2])}
    assert folders(bucket) == {"verdicts", *kept}
