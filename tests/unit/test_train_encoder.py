"""The encoder: hidden pixels have no influence, and with every patch visible it is the dense network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmearth_train.depthwise import depthwise
from mmearth_train.encoder import GRN, SIZES, DepthwiseConv, Encoder, UnknownModelError
from mmearth_train.masking import split_patches
from mmearth_train.sites import Sites, gather, scatter
from mmearth_train.variant import VARIANTS, Response, Scope


def masks(n: int) -> tuple[Tensor, Tensor]:
    visible, masked = split_patches(0, 0, np.arange(n), 49)
    return torch.from_numpy(visible), torch.from_numpy(masked)


def encoder(size: str = "atto", patch: int = 8) -> Encoder:
    torch.manual_seed(0)
    result = Encoder(size, 12, patch).double()
    for parameter in result.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return result


def dense(
    weights: dict[str, Tensor], x: Tensor, depths: tuple[int, ...], stride: int, padding: tuple[int, int] = (1, 0)
) -> list[Tensor]:
    """ConvNeXt V2 with MMEarth's stem in plain channels-first convolutions: (N, 12, H, W) to four (N, C, h, w).

    ``padding`` is that of the two convolutions of the stem.
    """

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    def norm(x: Tensor, name: str) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.layer_norm(x.movedim(1, -1), scale.shape, scale, shift, 1e-6).movedim(-1, 1)

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"][:, :, None, None], weights[f"{name}.bias"])

    x = functional.gelu(norm(conv(x, "initial_conv", padding=padding[0]), "initial_norm"))
    x = norm(conv(x, "stem", stride=stride, padding=padding[1], groups=x.shape[1]), "stem_norm")
    maps = []
    for stage, depth in enumerate(depths):
        if stage:
            name = f"downsamples.{stage - 1}"
            kernel = weights[f"{name}.reduce.weight"].view(2 * x.shape[1], 2, 2, x.shape[1]).permute(0, 3, 1, 2)
            x = functional.conv2d(norm(x, f"{name}.norm"), kernel, weights[f"{name}.reduce.bias"], stride=2)
        for index in range(depth):
            name = f"stages.{stage}.{index}"
            y = norm(conv(x, f"{name}.dwconv", padding=3, groups=x.shape[1]), f"{name}.norm")
            y = functional.gelu(linear(y, f"{name}.pwconv1"))
            size = y.flatten(2).norm(dim=2)[:, :, None, None]
            gamma, beta = (weights[f"{name}.grn.{part}"][:, None, None] for part in ("gamma", "beta"))
            y = gamma * (y * size / (size.mean(1, keepdim=True) + 1e-6)) + beta + y
            x = x + linear(y, f"{name}.pwconv2")
        maps.append(x)
    return maps


@pytest.mark.parametrize("patch", [8, 16])
def test_with_all_patches_visible_it_is_the_dense_network(patch: int) -> None:
    model, images = encoder(patch=patch), torch.randn(2, 12, 7 * patch, 7 * patch, dtype=torch.float64)
    everything = torch.arange(49).expand(2, -1)
    with torch.no_grad():
        features = model(images, everything).transpose(1, 2).reshape(2, -1, 7, 7)
        *_, expected = dense(dict(model.named_parameters()), images, SIZES["atto"][0], patch // 8)
    assert (features - expected).norm() <= 1e-12 * expected.norm()


@pytest.mark.parametrize(("patch", "height", "width"), [(8, 56, 40), (16, 32, 64)])
def test_whole_images_give_the_dense_networks_maps_at_four_scales(patch: int, height: int, width: int) -> None:
    model, images = encoder(patch=patch), torch.randn(2, 12, height, width, dtype=torch.float64)
    with torch.no_grad():
        found = model.maps(images)
        expected = dense(dict(model.named_parameters()), images, SIZES["atto"][0], patch // 8)
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == (2, 40 * 2**i, 8 * height // patch // 2**i, 8 * width // patch // 2**i)
        assert (one - other).norm() <= 1e-12 * other.norm()


@pytest.mark.parametrize(("patch", "padding", "sides"), [(8, (0, 0), [54, 27, 13, 6]), (16, (0, 1), [56, 28, 14, 7])])
def test_the_published_classifiers_stem_does_not_pad_its_first_convolution(
    patch: int, padding: tuple[int, int], sides: list[int]
) -> None:
    model, images = encoder(patch=patch), torch.randn(1, 12, 7 * patch, 7 * patch, dtype=torch.float64)
    with torch.no_grad():
        found = model.maps(images, "published")
        expected = dense(dict(model.named_parameters()), images, SIZES["atto"][0], patch // 8, padding)
    assert [one.shape[-1] for one in found] == sides
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm()


def test_hidden_pixels_have_no_influence() -> None:
    model, images = encoder(), torch.randn(3, 12, 56, 56, dtype=torch.float64)
    visible, masked = masks(3)
    changed = images.clone().view(3, 12, 7, 8, 7, 8)
    for n in range(3):
        for patch in masked[n].tolist():
            changed[n, :, patch // 7, :, patch % 7] = torch.inf
    with torch.no_grad():
        assert torch.equal(model(images, visible), model(changed.view(images.shape), visible))


def test_hidden_sites_stay_exactly_zero_and_visible_ones_come_back() -> None:
    visible, masked = masks(2)
    sites = Sites(visible, 7)
    x = torch.randn(2, 19, 4, 4, 5)
    grid = scatter(x, sites)
    assert torch.equal(gather(grid, sites, 4), x)
    patches = grid.view(2, 7, 4, 7, 4, 5).transpose(2, 3).reshape(2, 49, 4, 4, 5)
    for n in range(2):
        assert (patches[n, masked[n]] == 0).all()
        assert torch.equal(patches[n, visible[n]], x[n])


def test_written_out_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    visible, _ = masks(2)
    conv, grn = DepthwiseConv(3).double(), GRN(3).double()
    torch.nn.init.normal_(grn.gamma)
    x = torch.randn(2, 19, 1, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: conv(x, Sites(visible, 7)), (x, conv.weight))
    assert torch.autograd.gradcheck(lambda x, *_: grn(x), (x, grn.gamma, grn.beta))


@pytest.mark.parametrize(("threads", "compiler"), [(1, True), (3, True), (1, False)])
@pytest.mark.parametrize(("side", "shape", "channels"), [(7, (19, 2, 2), 70), (1, (1, 9, 12), 5)])
def test_gradients_are_those_of_the_convolution_of_the_whole_grid(
    side: int,
    shape: tuple[int, int, int],
    channels: int,
    threads: int,
    compiler: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a CPU in one and several threads, and where numba is not there."""
    if not compiler:
        monkeypatch.setattr("mmearth_train.depthwise.kernels", lambda module: None)
    torch.manual_seed(0)
    visible = masks(4)[0] if side == 7 else torch.zeros(4, 1, dtype=torch.long)
    sites, x = Sites(visible, side), torch.randn(4, *shape, channels, requires_grad=True)
    weight, pull = torch.randn(channels, 1, 7, 7, requires_grad=True), torch.randn(4, *shape, channels)
    grid = scatter(x, sites).permute(0, 3, 1, 2)
    y = functional.conv2d(grid, weight, padding=3, groups=channels).permute(0, 2, 3, 1)
    expected = torch.autograd.grad(gather(y, sites, shape[1]), (x, weight), pull)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = torch.autograd.grad(depthwise(x, weight, visible, side), (x, weight), pull)
    finally:
        torch.set_num_threads(before)
    for one, other, like in zip(found, expected, (x, weight), strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
        assert one.stride() == like.stride()


def test_compilers_see_the_depthwise_convolution_as_one_operation() -> None:
    """Schema, fake tensors, autograd registration and traced gradients, as torch itself checks them."""
    torch.manual_seed(0)
    visible, _ = masks(2)
    x = torch.randn(2, 19, 2, 2, 3, requires_grad=True)
    weight = torch.randn(3, 1, 7, 7, requires_grad=True)
    torch.library.opcheck(depthwise, (x, weight, visible, 7))


@pytest.mark.parametrize("scope", ["sample", "batch"])
def test_normalisation_is_over_the_sites_of_its_scope(scope: Scope) -> None:
    torch.manual_seed(0)
    grn = GRN(4, Response(scope, 1e-3)).double()
    torch.nn.init.normal_(grn.gamma)
    torch.nn.init.normal_(grn.beta)
    x = torch.randn(3, 5, 2, 2, 4, dtype=torch.float64)
    found = grn(x)
    for n in range(3):
        sites = x[n].reshape(-1, 4) if scope == "sample" else x.reshape(-1, 4)
        norm = np.linalg.norm(sites.numpy(), axis=0)
        scale = 1 + grn.gamma.detach().numpy() * norm / (norm.mean() + 1e-3)
        np.testing.assert_allclose(found[n].detach(), x[n].numpy() * scale + grn.beta.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("preset", ["default", "reference"])
def test_dead_channels_have_finite_gradients(preset: str) -> None:
    """GELU is exactly 0 far below 0: here for one channel of the first block, and for all of them in the last."""
    torch.manual_seed(0)
    model = Encoder("atto", 12, 8, VARIANTS[preset])
    for layer in model.stages.modules():
        if isinstance(layer, GRN):
            torch.nn.init.ones_(layer.gamma)
    with torch.no_grad():
        model.stages[0][0].pwconv1.bias[3] = -1e4
        model.stages[3][1].pwconv1.bias[:] = -1e4
    visible, _ = masks(2)
    model(torch.randn(2, 12, 56, 56), visible).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_normalisation_of_a_sample_does_not_depend_on_its_batch() -> None:
    model, images = encoder(), torch.randn(4, 12, 56, 56, dtype=torch.float64)
    visible, _ = masks(4)
    with torch.no_grad():
        together = model(images, visible)
        alone = model(images[2:3], visible[2:3])
    torch.testing.assert_close(together[2:3], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "millions"),
    [
        ("atto", 3.4),
        ("femto", 4.8),
        ("pico", 8.6),
        ("nano", 15.0),
        ("tiny", 27.9),
        ("base", 87.7),
        ("large", 196.4),
        ("huge", 657.5),
    ],
)
def test_sizes_have_the_published_number_of_weights(size: str, millions: float) -> None:
    """Table 9 of Woo et al. 2023 counts a classifier of 1000 classes, which is left out here."""
    with torch.device("meta"):
        model = Encoder(size, 12, 8)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.15)


def test_an_unknown_size_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownModelError, match="unknown model 'colossal'; choose from: atto, femto"):
        Encoder("colossal", 12, 8)


def test_autocast_computes_convolutions_in_bfloat16() -> None:
    torch.manual_seed(0)
    model, images = Encoder("atto", 12, 8), torch.randn(2, 12, 56, 56)
    visible, _ = masks(2)
    exact = model(images, visible)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(images, visible)
    rough.sum().backward()
    assert (rough - exact).norm() < 0.03 * exact.norm()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
