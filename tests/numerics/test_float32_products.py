"""Contract 46: flows keep all digits of float32 products where torch's settings allow fewer."""

import threading

import pytest
import torch

from pyro_gflows import EquivariantTransform, ImageAction, VectorAction, g_coupling, g_residual_image_flow
from pyro_gflows.numerics.float32_products import full_products, products_are_reduced
from pyro_gflows.numerics.matrix_functions import matrix_exp
from pyro_gflows.testing import randomize_


@pytest.fixture(params=["high", "medium"])
def reduced(request):
    """The user's own settings, with fewer digits."""
    torch.set_float32_matmul_precision(request.param)
    assert products_are_reduced()
    yield request.param
    assert torch.get_float32_matmul_precision() == request.param, "the settings were not restored"
    assert torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")


class Witness(EquivariantTransform):
    """The identity, which writes down whether products are reduced while it computes."""

    def call_and_ladj(self, x, context=None):
        self.seen = (products_are_reduced(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
        return x, x.new_zeros(x.shape[:-1])

    inv_call_and_ladj = call_and_ladj


FULL = (False, "highest", False)


def test_a_transform_computes_in_full(reduced):
    action = VectorAction.plane("D4")
    layer, x = Witness(action), torch.ones(3, 2)
    for call in (layer, layer.inv, layer.call_and_ladj, lambda x: layer.log_abs_det_jacobian(x, x)):
        layer.seen = None
        call(x)
        assert layer.seen == FULL


def test_the_distribution_and_its_network_do(reduced):
    seen = []

    class Network(torch.nn.Linear):
        def forward(self, x):
            seen.append((products_are_reduced(), torch.get_float32_matmul_precision()))
            return super().forward(x)

    action = VectorAction.trivial("C1", copies=4)
    layer = g_coupling(action, network=lambda given, wanted: Network(given.numel, wanted.numel))
    layer(torch.ones(3, 4))
    assert seen and set(seen) == {(False, "highest")}


def test_functions_of_matrices_do(reduced, monkeypatch):
    seen = []
    exponential = torch.linalg.matrix_exp
    monkeypatch.setattr(
        torch.linalg, "matrix_exp", lambda x: (seen.append(torch.get_float32_matmul_precision()), exponential(x))[1]
    )
    matrix_exp(torch.zeros(2, 2))
    assert seen == ["highest"]


def test_settings_are_restored_after_an_error(reduced):
    with pytest.raises(KeyError), full_products():
        raise KeyError
    assert torch.get_float32_matmul_precision() == reduced


def test_settings_of_single_kinds():
    """From torch 2.9 on, users may choose the kinds of products one by one; older settings then cannot be read."""
    conv = getattr(torch.backends.cudnn, "conv", None)
    matmul = torch.backends.mkldnn.matmul if conv is not None else None
    if conv is None or not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has no settings of single kinds")
    before = conv.fp32_precision, matmul.fp32_precision
    try:
        for chosen in (("ieee", "bf16"), ("tf32", "ieee"), ("ieee", "tf32")):
            conv.fp32_precision, matmul.fp32_precision = chosen
            with full_products():
                assert {conv.fp32_precision, matmul.fp32_precision} <= {"ieee", "none"}
            assert (conv.fp32_precision, matmul.fp32_precision) == chosen
    finally:
        conv.fp32_precision, matmul.fp32_precision = before


def test_two_threads(reduced):
    """The one that leaves first does not restore the settings under the other."""
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()

    def first():
        with full_products():
            first_is_in.set()
            second_is_in.wait(5)
        first_is_out.set()

    thread = threading.Thread(target=first)
    thread.start()
    first_is_in.wait(5)
    with full_products():
        second_is_in.set()
        first_is_out.wait(5)
        assert not products_are_reduced()
    thread.join()
    assert products_are_reduced()


@pytest.mark.cuda
def test_images_on_cuda():
    """By default torch computes convolutions there with three digits."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    action = ImageAction("C4", copies=1, size=28)
    flow = randomize_(g_residual_image_flow(action, blocks=3)).eval().cuda()
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)).cuda()
    assert torch.backends.cudnn.allow_tf32
    by_default = flow.dist.log_prob(x)
    torch.testing.assert_close(flow.dist.log_prob(action.act(1, x)), by_default, rtol=2e-6, atol=0)
    layers = flow.dist.transform
    z = layers.inv(x)
    torch.testing.assert_close(layers(z.clone()), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(by_default.cpu(), flow.cpu().dist.log_prob(x.cpu()), rtol=2e-5, atol=0)
