from __future__ import annotations

from torchdl.cli.run import rename_metrics
from torchdl.files import CHECKPOINT, PREVIOUS
from torchdl.training import checkpoint


def test_a_checkpoint_from_before_gets_the_metrics_new_names(tmp_path):
    rows = [
        {"epoch": 1, "train/loss": 1.0, "val/saturation": 0.1},
        {"epoch": 2, "val/frechet_distance": 3.0, "val/coverage": 0.5, "val/share_class_7": 0.2, "val/loss": 0.3},
    ]
    state = {"order": {"monitor": "val/frechet_distance"}, "progress": {"best": 3.0, "history": rows}}
    checkpoint.write(state, tmp_path / CHECKPOINT)
    (tmp_path / PREVIOUS).write_bytes(b"damaged")
    for _ in range(2):  # the second time there is nothing to rename
        rename_metrics(tmp_path)
        found = checkpoint.read(tmp_path / CHECKPOINT)
        assert found["order"] == {"monitor": "samples/frechet_distance"}
        assert found["progress"]["best"] == 3.0
        first, second = found["progress"]["history"]
        assert first == rows[0]
        assert list(second.items()) == [
            ("epoch", 2),
            ("samples/frechet_distance", 3.0),
            ("samples/coverage", 0.5),
            ("samples/share_class_7", 0.2),
            ("val/loss", 0.3),
        ]
    assert (tmp_path / PREVIOUS).read_bytes() == b"damaged"
