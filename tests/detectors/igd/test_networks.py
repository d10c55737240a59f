import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from detectors.igd.networks import Critic, Decoder, DownBlock, DownConv2d, UpBlock, UpConv2d, frozen_call


@pytest.mark.parametrize("side", [32, 64, 96, 128, 160, 224, 256, 512])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_for_every_size(side, channels):
    decoder, critic = Decoder(side, channels, code_dim=16, width=1 / 32), Critic(side, channels, width=1 / 32)
    images = decoder(torch.randn(2, 16))
    assert images.shape == (2, channels, side, side)
    assert critic(images).shape == (2,)


def test_channels_are_those_of_the_paper():
    def outputs(network: nn.Module) -> list[int]:
        return [m.skip.out_channels for m in network.modules() if isinstance(m, UpBlock | DownBlock)]

    assert outputs(Decoder(32)) == [256, 128, 64]  # the local network
    assert outputs(Decoder(256)) == [512, 256, 128, 64]  # the global network
    assert outputs(Decoder(64)) == [128, 64]
    assert outputs(Critic(256)) == [128, 256, 512, 512]
    assert Decoder(256).linear.out_features == 512 * 4 * 4


@given(
    channels=st.integers(1, 4),
    out_channels=st.integers(1, 4),
    kernel_size=st.sampled_from([1, 3, 5]),
    side=st.sampled_from([(4, 4), (2, 6)]),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_fused_convolutions_equal_two_steps(channels, out_channels, kernel_size, side, bias, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, channels, *side, dtype=torch.float64)
    up = UpConv2d(channels, out_channels, kernel_size, bias=bias).double()
    down = DownConv2d(channels, out_channels, kernel_size, bias=bias).double()
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(up(x), F.conv2d(doubled, up.weight, up.bias, padding=kernel_size // 2))
    full = F.conv2d(x, down.weight, down.bias, padding=kernel_size // 2)
    torch.testing.assert_close(down(x), F.avg_pool2d(full, 2))


def test_blocks_equal_their_description():
    x = torch.randn(2, 3, 4, 4)
    up = UpBlock(3, 5).eval()
    norm1, _, conv1, norm2, _, conv2 = up.main
    assert conv1.bias is None
    doubled = F.interpolate(F.relu(norm1(x)), scale_factor=2.0)
    main = conv2(F.relu(norm2(F.conv2d(doubled, conv1.weight, padding=1))))
    torch.testing.assert_close(up(x), main + up.skip(F.interpolate(x, scale_factor=2.0)), atol=1e-5, rtol=1e-5)
    down = DownBlock(3, 5)
    norm1, _, conv1, norm2, _, conv2 = down.main
    assert conv1.bias is None
    main = F.conv2d(F.relu(norm2(conv1(F.relu(norm1(x))))), conv2.weight, conv2.bias, padding=1)
    expected = F.avg_pool2d(main, 2) + down.skip(F.avg_pool2d(x, 2))
    torch.testing.assert_close(down(x), expected, atol=1e-5, rtol=1e-5)


def test_critic_judges_each_sample_alone():
    critic = Critic(32, 1, width=1 / 16)
    images = torch.rand(4, 1, 32, 32)
    alone = torch.cat([critic(image[None]) for image in images])
    torch.testing.assert_close(critic(images), alone, atol=1e-5, rtol=1e-5)


def test_frozen_call_gives_gradients_to_the_input_only():
    module, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    frozen_call(module, x).sum().backward()
    assert module.weight.grad is None
    assert x.grad is not None
    torch.testing.assert_close(frozen_call(module, x), module(x))


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of 32, got 48"):
        Decoder(48)


@torch.no_grad()
@pytest.mark.parametrize("side", [32, 64])
def test_decoder_gives_the_same_images_in_both_memory_layouts(side):
    decoder = Decoder(side, 3, code_dim=8, width=1 / 16).eval()
    codes = torch.randn(5, 8)
    images = decoder(codes)
    assert images.is_contiguous()
    grid = decoder.linear(codes).unflatten(1, (-1, 4, 4))
    torch.testing.assert_close(images, decoder.blocks(grid), atol=1e-5, rtol=1e-5)
