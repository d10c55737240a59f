"""GPU-batched synthetic-lesion augmentation (MSACL, section 3.2)."""

from importlib.metadata import version

from medmix._containers import MedMixOutput
from medmix.comparisons import CutMixClasses, NoiseClasses, PermutationClasses, RotationClasses
from medmix.intensity import RandomNonlinearIntensity
from medmix.medmix import MedMix
from medmix.patches import NeighbourPatches
from medmix.views import MultiClassViews
from medmix.weak import WeakAugmentation

__version__ = version("msacl")

__all__ = [
    "CutMixClasses",
    "MedMix",
    "MedMixOutput",
    "MultiClassViews",
    "NeighbourPatches",
    "NoiseClasses",
    "PermutationClasses",
    "RandomNonlinearIntensity",
    "RotationClasses",
    "WeakAugmentation",
    "__version__",
]
