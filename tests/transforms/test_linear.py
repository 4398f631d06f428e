"""GLinear against a materialized matrix, and what its weights can reach."""

import pytest
import torch

from pyro_gflows import GLinear, ImageAction, VectorAction
from pyro_gflows.testing import randomize_


@pytest.mark.parametrize(
    "action", [VectorAction.rows("S3", features=2), ImageAction("D4", 1, size=3, fields="regular")], ids=str
)
def test_it_is_the_exponential_of_the_materialized_map(action):
    layer = randomize_(GLinear(action), generator=torch.Generator().manual_seed(0)).double()
    generator = layer.generator.matrix()
    generator = generator / (1 + (generator / layer.max_log_scale).square().sum()).sqrt()
    whole = torch.kron(generator, torch.eye(action.numel // len(generator), dtype=torch.float64))
    x = torch.randn(4, *action.event_shape, dtype=torch.float64)
    y, ladj = layer.call_and_ladj(x)
    torch.testing.assert_close(y.flatten(1), x.flatten(1) @ torch.linalg.matrix_exp(whole).T)
    torch.testing.assert_close(ladj, torch.linalg.slogdet(torch.linalg.matrix_exp(whole)).logabsdet.expand(4))


@pytest.mark.long
def test_it_starts_as_the_identity_and_finds_the_map_that_whitens():
    """Maximum likelihood of Gaussian data whose covariance commutes with the group."""
    action = VectorAction.rows("S3", features=2)
    generator = torch.Generator().manual_seed(0)
    layer = GLinear(action).double()
    noise = torch.randn(2000, 6, dtype=torch.float64, generator=generator)
    assert torch.equal(layer(noise), noise)
    truth = randomize_(GLinear(action), scale=0.4, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        x = truth(noise)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        z, ladj = layer.inv_call_and_ladj(x)
        (0.5 * z.square().sum(-1) - ladj).mean().backward()
        optimizer.step()
    with torch.no_grad():
        covariance = layer.inv_call_and_ladj(x)[0].T.cov()
    assert (covariance - torch.eye(6)).abs().max() < 0.1


@pytest.mark.parametrize("max_log_scale", [0.5, 3.0])
@pytest.mark.parametrize("action", [VectorAction.plane("C4"), ImageAction("C4", 3, size=2)])
def test_the_generator_is_capped_by_the_root_of_the_channels(action, max_log_scale):
    layer = randomize_(GLinear(action, max_log_scale=max_log_scale), scale=1000.0).double()
    channels = len(layer.generator.matrix())
    x = torch.randn(2, *action.event_shape, dtype=torch.float64)
    free = layer.generator.matrix()
    capped = max_log_scale * channels**0.5 * free / free.norm()  # far weights reach the bound to 1e-6
    expected = capped.trace() * action.numel / channels
    torch.testing.assert_close(layer.call_and_ladj(x)[1], expected.expand(2), rtol=1e-4, atol=1e-4)


def test_far_weights_stay_invertible():
    layer = randomize_(GLinear(VectorAction.plane("C4")), scale=100.0).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(layer.inv(layer(x).clone()), x, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="positive finite bound"):
        GLinear(VectorAction.plane("C4"), max_log_scale=0.0)
