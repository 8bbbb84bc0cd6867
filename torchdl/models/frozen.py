"""A network that computes features and is not trained."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from torchdl.errors import require


class FrozenFeatures(nn.Module):
    """Freeze a backbone completely: no gradients, and evaluation mode even after ``train()``.

    In training mode, batch norms would update their statistics while a head is trained, and so change the features.

    Args:
        backbone: Computes the features.

    Raises:
        InputError: The backbone is not a module.

    Example:
        >>> frozen = torchdl.FrozenFeatures(torch.nn.BatchNorm1d(3)).train()
        >>> before = frozen.fingerprint()
        >>> frozen(torch.randn(8, 3)).requires_grad, frozen.fingerprint() == before
        (False, True)
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        require(isinstance(backbone, nn.Module), "FrozenFeatures: the backbone must be a module")
        self.backbone = backbone.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Set the mode, but leave the backbone in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the backbone's features."""
        return self.backbone(x)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all parameters and buffers, in hexadecimal, to check that nothing has changed."""
        digest = hashlib.sha256()
        for name, tensor in self.backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
