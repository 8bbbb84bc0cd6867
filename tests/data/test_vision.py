from __future__ import annotations

import sys
import types

import pytest

from torchdl import InputError
from torchdl.data.vision import import_torchvision


def test_a_torchvision_that_does_not_match_torch_is_one_sentence_with_the_remedy(monkeypatch):
    class Broken:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(InputError, match=r"torchvision::nms.*pip install"):
        import_torchvision()


def test_a_torchvision_that_loads_is_returned(monkeypatch):
    fake = types.ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    assert import_torchvision() is fake
