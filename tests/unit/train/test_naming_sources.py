"""A run says of which commits its dataset is, as the scan wrote them down."""

from typing import TYPE_CHECKING

from codetune_api.contracts import DatasetManifest
from codetune_api.finetune import DatasetSource
from codetune_api.project import SourceStatus
from codetune_api.protocol import DatasetEvent

if TYPE_CHECKING:
    from unit.train.conftest import Store


def test_the_sources_of_the_dataset_are_said(store: "Store") -> None:
    path = store.root / "dataset" / "manifest.json"
    manifest = DatasetManifest.model_validate_json(path.read_bytes())
    archive = "sha256:" + "1" * 64
    scanned = [
        SourceStatus(name="backend", commit="0123abc", files=3, message="src/secret.py was left out"),
        SourceStatus(name="vendor", digest=archive),
    ]
    path.write_text(manifest.model_copy(update={"sources": scanned}).model_dump_json(by_alias=True))
    (said,) = [event.dataset for event in store.train(store.config()) if isinstance(event, DatasetEvent)]
    assert said.sources == [
        DatasetSource(name="backend", commit="0123abc"),
        DatasetSource(name="vendor", digest=archive),
    ]
