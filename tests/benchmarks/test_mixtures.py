"""The mixtures of the label switching benchmark: the written-out log-joint is that of the model, and NUTS's target."""

import pytest
import torch

from benchmarks.mixtures import SETTINGS, hmc
from pyro_gflows.guides import AutoGFlow


@pytest.mark.parametrize("name", ["k3-overlapping", "k5-separated"])
@pytest.mark.long
def test_the_written_out_log_joint_is_that_of_the_model(name):
    mixture = SETTINGS[name]
    x = mixture.data()[::10]
    guide = AutoGFlow(mixture.model, mixture.action, args=(x,), check="raise")
    z = torch.randn(4, guide.latent_dim, dtype=torch.float64)
    torch.testing.assert_close(mixture.log_density(x)(z), guide.log_density(x)(z))
    values = mixture.values(z)
    torch.testing.assert_close(mixture.unconstrained(values), z)
    order = torch.rand(4, mixture.components).argsort(-1)
    image = mixture.permuted(z, order)
    torch.testing.assert_close(mixture.values(image)["weights"], values["weights"].gather(-1, order))
    torch.testing.assert_close(mixture.log_density(x)(image), mixture.log_density(x)(z))
    torch.testing.assert_close(guide.flow(image), guide.flow(z))


def test_hamiltonian_steps_keep_a_normal():
    torch.manual_seed(0)
    scale = torch.tensor([1.0, 3.0], dtype=torch.float64)
    z = hmc(lambda z: -0.5 * (z / scale).square().sum(-1), scale * torch.randn(20_000, 2, dtype=torch.float64))
    torch.testing.assert_close(z.std(0), scale, rtol=0.02, atol=0)
    assert (z.mean(0) / scale).abs().max() < 0.03
