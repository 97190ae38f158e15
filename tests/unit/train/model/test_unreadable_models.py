"""A base model whose files are another user's alone, as safetensors writes those of root."""

from pathlib import Path

import pytest
from codetune_trainer.architectures import load_model_config
from codetune_trainer.errors import ModelNotFound


def test_a_model_that_may_not_be_read_is_no_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch(0o600)
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path).suffix != ".safetensors")
    with pytest.raises(ModelNotFound, match=r"pvc://models/x can't be read\. .*may not read \S+/model\.safetensors\.$"):
        load_model_config(tmp_path, "pvc://models/x")
