"""The simulated second device refuses mixed devices, allows copies, and counts the values that are read."""

import pytest
import torch
from torch.nn import functional

from tests.contracts.second_device import SECOND, DevicesMixed, second_device

CPU = torch.device("cpu")


def vector(device):
    return torch.ones(2, device=device)


def matrix(device):
    return torch.eye(2, device=device)


REFUSED = {
    "matmul": lambda here, there: matrix(there) @ matrix(here),
    "matrix times vector": lambda here, there: matrix(here) @ vector(there),
    "linear": lambda here, there: functional.linear(vector(there), matrix(here)),
    "linear, bias": lambda here, there: functional.linear(matrix(there), matrix(there), vector(here)),
    "einsum": lambda here, there: torch.einsum("ij,kj->ik", matrix(there), matrix(here)),
    "conv2d": lambda here, there: functional.conv2d(
        torch.ones(1, 1, 3, 3, device=there), torch.ones(1, 1, 3, 3, device=here)
    ),
    "solve": lambda here, there: torch.linalg.solve(matrix(there), matrix(here)),
    "triangular": lambda here, there: torch.linalg.solve_triangular(matrix(here), matrix(there), upper=True),
    "where": lambda here, there: torch.where(vector(there) > 0, vector(there), vector(here)),
    "where, condition": lambda here, there: torch.where(vector(here) > 0, vector(there), vector(there)),
    "cat": lambda here, there: torch.cat([vector(there), vector(here)]),
    "sum": lambda here, there: vector(there) + vector(here),
    "a single number and a vector": lambda here, there: torch.ones((), device=there) + vector(here),
    "in place": lambda here, there: vector(there).add_(vector(here)),
    "embedding": lambda here, there: functional.embedding(torch.zeros(2, dtype=torch.long, device=here), matrix(there)),
    "index_select": lambda here, there: vector(there).index_select(0, torch.zeros(1, dtype=torch.long, device=here)),
    "gather": lambda here, there: vector(there).gather(0, torch.zeros(1, dtype=torch.long, device=here)),
    "an index from elsewhere": lambda here, there: vector(here)[torch.zeros(1, dtype=torch.long, device=there)],
    "values from elsewhere": lambda here, there: vector(there).index_put((matrix(there).long()[0],), vector(here)),
}
ALLOWED = {
    "copies": lambda here, there: vector(there).copy_(vector(here).to(there)),
    "copies of another device": lambda here, there: vector(there).copy_(vector(here)),
    "a part": lambda here, there: matrix(there).__setitem__(0, vector(here)),
    "a single number": lambda here, there: torch.ones((), device=here) * vector(there),
    "indices": lambda here, there: vector(there)[torch.zeros(1, dtype=torch.long, device=here)],
    "a list of indices": lambda here, there: vector(there)[[0, 1]],
    "Python numbers": lambda here, there: torch.tensor([1.0, 2.0], device=there) + vector(there).new_tensor([1.0, 2.0]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mixed_devices_are_refused(name):
    with second_device(), pytest.raises(DevicesMixed, match="two devices"):
        REFUSED[name](CPU, SECOND)


@pytest.mark.parametrize("name", ALLOWED)
def test_copies_indices_and_scalars_are_allowed(name):
    with second_device():
        ALLOWED[name](CPU, SECOND)


@pytest.mark.cuda
def test_cuda_refuses_and_allows_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cuda = torch.device("cuda")
    for name, operation in REFUSED.items():
        with pytest.raises(RuntimeError, match="device|type .*should be the same"):
            print(name, operation(CPU, cuda))
    for operation in ALLOWED.values():
        operation(CPU, cuda)


def test_values_that_are_read_are_counted():
    with second_device() as device:
        x = torch.ones(2, device=SECOND)
        assert float(x.sum()) == 2.0 and bool((x > 0).all()) and x.cpu().tolist() == [1.0, 1.0]
        assert device.reads == {"aten._local_scalar_dense.default": 2, "aten._to_copy.default": 1}
        device.reads.clear()
        assert x[x > 0].numel() == 2 and len(x.repeat_interleave(x.long())) == 2
        assert device.reads == {"aten.index.Tensor": 1, "aten.repeat_interleave.Tensor": 1}


def test_a_shape_that_is_changed_in_place():
    with second_device():
        x = torch.ones(1, 2, 3, device=SECOND).squeeze_(0).transpose_(0, 1)
        assert x.shape == (x + 1).shape == (3, 2) and x.stride() == (1, 3)


def test_conjugated_values():
    with second_device():
        z = torch.complex(torch.ones(2, device=SECOND), torch.ones(2, device=SECOND))
        assert z.conj().imag.cpu().tolist() == (1 * z.conj()).imag.cpu().tolist() == [-1.0, -1.0]


def test_a_tensor_without_values_is_refused():
    lost = torch.ones(2, device=SECOND)
    with second_device(), pytest.raises(DevicesMixed, match="no values"):
        lost + 1
