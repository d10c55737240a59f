"""One training step: images to views to embeddings to the terms of equation (1)."""

from contextlib import nullcontext

import torch
import torch.distributed as dist
from networks.encoders import Encoder
from rows import Recipe, strong_augmentation
from torch import Tensor, nn

from medmix import MultiClassViews, NeighbourPatches, WeakAugmentation
from msacl_loss import LossTerms, MSACLLoss

EMBEDDING_DIM = 128


class TrainingStep(nn.Module):
    """Images -> views and patch pairs -> embeddings -> the terms of equation (1)."""

    def __init__(self, encoder: Encoder, recipe: Recipe, size: int, changes_colours: bool, amp: bool) -> None:
        super().__init__()
        jitter_p, grayscale_p = (0.8, 0.2) if changes_colours else (0.0, 0.0)
        weak = WeakAugmentation(size, scale=(recipe.crop_min, 1.0), jitter_p=jitter_p, grayscale_p=grayscale_p)
        self.encoder = encoder
        self.views = MultiClassViews(strong_augmentation(recipe), weak, recipe.num_classes)
        self.patches = NeighbourPatches(size // 4)
        self.criterion = MSACLLoss(
            embedding_dim=EMBEDDING_DIM,
            num_classes=recipe.num_classes,
            temperature=recipe.temperature,
            alpha=recipe.alpha,
            weights=recipe.weights,
            augmentation_dim=EMBEDDING_DIM,
        )
        self.has_position_term = recipe.weights[3] > 0
        self.criterion.position_head.requires_grad_(self.has_position_term)
        self.amp = amp

    def embed(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to embeddings (B, 128) on the unit sphere."""
        context = torch.autocast(images.device.type, torch.bfloat16) if self.amp else nullcontext()
        with context:
            z = self.encoder(images)
        return nn.functional.normalize(z.to(torch.get_default_dtype()), dim=1)

    def forward(self, images: Tensor, generator: torch.Generator) -> tuple[LossTerms, Tensor, Tensor]:
        """Return the loss terms, and this process's embeddings (2N, D) with their classes (2N,).

        Every process draws the views of the whole batch and embeds its share: draws and lesion donors are then
        those of a single process.
        """
        view_a, view_b, labels = (own_rows(t) for t in self.views(images, generator=generator))
        z_a, z_b = self.embed(torch.cat([view_a, view_b])).chunk(2)
        pairs = None
        if self.has_position_term:
            first, second, position = (own_rows(t) for t in self.patches(images, generator=generator))
            z_first, z_second = self.embed(torch.cat([first, second])).chunk(2)
            pairs = (z_first, z_second, position)
        # f_beta sees z at length 1: at the length that the loss would give it, term (8) is learnt before term (5) has
        # changed the features, and little is gained.
        terms = self.criterion(z_a, z_b, labels, patch_pairs=pairs, features=(z_a, z_b))
        return terms, torch.cat([z_a, z_b]).detach(), labels.repeat(2)


def own_rows(rows: Tensor) -> Tensor:
    """This process's share of the rows of a batch; all of them where there is one process."""
    return rows.tensor_split(dist.get_world_size())[dist.get_rank()] if dist.is_initialized() else rows
