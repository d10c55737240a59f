import torch
from torchvision.transforms.v2.functional import gaussian_blur


def chest_phantoms(count: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw pictures (count, 1, size, size) in [0, 1] that look a little like chest X-rays; nobody was irradiated."""
    axis = torch.linspace(-1, 1, size)
    y, x = axis.view(1, size, 1), axis.view(1, 1, size)
    vary = torch.rand((count, 8, 1, 1), generator=generator) * 2 - 1

    picture = 0.75 - 0.15 * (x**2 + 0.3 * y**2) + 0.04 * vary[:, 0]
    for side in (-1, 1):  # two dark lungs
        width = 0.30 + 0.03 * vary[:, 1]
        height = 0.68 + 0.05 * vary[:, 2]
        distance = ((x - side * 0.45) / width) ** 2 + ((y + 0.05 * vary[:, 3]) / height) ** 2
        picture = picture - (0.45 + 0.05 * vary[:, 4]) * torch.sigmoid(12 * (1 - distance))
    ribs = torch.sin(22 * (y + 0.35 * x.abs() ** 1.5 + 0.1 * vary[:, 5]))
    picture = picture + 0.05 * ribs.clamp(min=0) * (x.abs() > 0.1)
    picture = picture + 0.20 * torch.exp(-((x / 0.09) ** 2))  # the spine
    heart = torch.exp(-(((x - 0.18) / 0.25) ** 2) - ((y - 0.3) / (0.3 + 0.03 * vary[:, 6])) ** 2)
    picture = picture + 0.22 * heart

    grain = torch.randn((count, 1, size, size), generator=generator)
    texture = gaussian_blur(grain, kernel_size=9, sigma=2.0)
    return (picture.unsqueeze(1) + 0.08 * texture + 0.01 * grain).clamp(0, 1)


def add_nodules(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a soft round shadow into a lung of each image; returns images and masks. These are not MedMix's lesions."""
    count, _, size, _ = images.shape
    axis = torch.linspace(-1, 1, size)
    y, x = axis.view(1, 1, size, 1), axis.view(1, 1, 1, size)
    place = torch.rand((count, 4, 1, 1, 1), generator=generator)
    side = torch.where(place[:, 0] < 0.5, -1.0, 1.0)
    centre_x = side * (0.38 + 0.14 * place[:, 1])
    centre_y = -0.4 + 0.7 * place[:, 2]
    radius = 0.10 + 0.06 * place[:, 3]
    squared = ((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2
    shadow = 0.28 * torch.exp(-(squared**2))
    return (images + shadow).clamp(0, 1), squared < 1
