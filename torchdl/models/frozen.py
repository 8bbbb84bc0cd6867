"""A network whose features are used as they are."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from torchdl.errors import require


class FrozenFeatures(nn.Module):
    """Hold a backbone truly still: no gradients, and evaluation mode whatever ``train()`` says.

    Without the latter, batch norms would go on moving their statistics, and so the features, while only a head is
    trained.

    Args:
        backbone: Gives the features.

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
        """Note the mode, as every module does, and leave the backbone in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Give the backbone's features."""
        return self.backbone(x)

    def fingerprint(self) -> str:
        """Return the SHA-256 of all parameters and buffers, in hexadecimal: to see that nothing has moved."""
        digest = hashlib.sha256()
        for name, tensor in self.backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()
