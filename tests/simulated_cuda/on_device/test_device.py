"""The simulated devices behave as CUDA devices do: memory, mixed devices, random numbers, waits."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

CUDA = torch.device("cuda")
HOST = torch.tensor([0])


@pytest.fixture
def no_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_a_training_step_gives_the_numbers_of_the_cpu() -> None:
    found = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 3).to(device)
        optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
        x_BD = torch.randn(2, 4).to(device)
        functional.gelu(layer(x_BD)).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
        optimizer.step()
        found[device] = layer.weight.detach().cpu()
    assert torch.equal(found["cpu"], found["cuda"])


CONVOLUTIONS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...], int]] = {
    "of images": (functional.conv2d, (2, 3, 8, 8), (4, 3, 2, 2), 1),
    "of videos": (functional.conv3d, (2, 3, 2, 8, 8), (4, 3, 2, 4, 4), 1),
    "each channel for itself": (functional.conv1d, (2, 6, 9), (6, 1, 4), 6),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_give_the_numbers_of_the_cpu(name: str) -> None:
    """Those of Qwen's image encoders and of Qwen3.5's decoder among them."""
    convolve, of_images, of_weight, groups = CONVOLUTIONS[name]
    drawn = [torch.randn(shape) for shape in (of_images, of_weight, of_weight[:1])]
    found = {}
    for device in ("cpu", "cuda"):
        own = [tensor.to(device).clone().requires_grad_() for tensor in drawn]
        out = convolve(*own, groups=groups)
        out.square().sum().backward()
        gradients = [one.grad for one in own if one.grad is not None]
        found[device] = [tensor.detach().cpu() for tensor in (out, *gradients)]
    assert len(found["cpu"]) == 4
    assert all(map(torch.equal, found["cpu"], found["cuda"]))


def test_four_bits_are_those_of_the_cpu_and_counted() -> None:
    pytest.importorskip("bitsandbytes", reason='pip install -c constraints.txt -e ".[bits]"')
    from trainables.shared_layers.quantised_linear import QuantisedLinear

    host = torch.nn.Linear(256, 64, bias=False)
    own, x_BI = copy.deepcopy(host).to(CUDA), torch.randn(3, 256, device=CUDA, requires_grad=True)
    QuantisedLinear(own)  # bitsandbytes keeps the possible values of a scale on the device
    before = torch.cuda.memory_allocated()
    quantised, expected = QuantisedLinear(own), QuantisedLinear(host)
    assert torch.cuda.memory_allocated() - before < 64 * 256, "less than a byte a value"
    torch.cuda.set_sync_debug_mode("error")
    quantised(x_BI).sum().backward()
    torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(quantised.packed.cpu(), expected.packed)
    assert x_BI.grad is not None
    assert torch.allclose(x_BI.grad.cpu()[0], expected.weight.sum(0), atol=1e-5)


WITHOUT_KERNELS = """
import sys, torch.cuda
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "Finder"]
from trainables.errors import BadInput
from trainables.shared_layers.quantised_linear import check_kernels
try:
    check_kernels(torch.device("cuda"))
except BadInput as error:
    print(error)
"""


def test_a_bitsandbytes_without_kernels_is_a_line() -> None:
    """As its wheel has a library for some versions of CUDA, and not for the others."""
    pytest.importorskip("bitsandbytes", reason='pip install -c constraints.txt -e ".[bits]"')
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERNELS],
        env={**os.environ, "BNB_CUDA_VERSION": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert said.startswith("bitsandbytes ") and said.count("\n") == 1
    assert " does not compute on cuda here (" in said and "--base-bits 4" in said


def test_memory_is_counted_by_device_and_limited() -> None:
    before = torch.cuda.memory_allocated(1)
    held = torch.empty(1000, device="cuda:1")
    assert torch.cuda.memory_allocated(1) - before == 4096, "in blocks of 512 bytes"
    torch.cuda.reset_peak_memory_stats(1)
    view, computed = held[10:].view(-1, 2), held + 1
    del computed
    assert torch.cuda.memory_allocated(1) - before == 4096, "a view takes nothing"
    assert torch.cuda.max_memory_allocated(1) - before == 8192
    free, total = torch.cuda.mem_get_info(1)
    assert total - free == torch.cuda.memory_allocated(1)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        torch.empty(total, dtype=torch.uint8, device="cuda:1")
    del held, view
    assert torch.cuda.memory_allocated(1) == before


def test_attention_keeps_no_scores() -> None:
    q_BHTD = torch.randn(1, 2, 256, 8, device=CUDA, requires_grad=True)
    mask_TT = torch.ones(256, 256, dtype=torch.bool, device=CUDA).tril()
    for mask in (None, mask_TT):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = functional.scaled_dot_product_attention(q_BHTD, q_BHTD, q_BHTD, mask)
        kept = torch.cuda.memory_allocated() - before
        assert kept < 2 * 256 * 256 * 4, "less than the scores"
        out.sum().backward()
        own = q_BHTD.detach().cpu().requires_grad_()
        at_home = None if mask is None else mask.cpu()
        functional.scaled_dot_product_attention(own, own, own, at_home).sum().backward()
        assert q_BHTD.grad is not None and own.grad is not None
        assert torch.allclose(q_BHTD.grad.cpu(), own.grad)
        q_BHTD.grad = None


@pytest.mark.parametrize(("dtype", "fused"), [(torch.bfloat16, True), (torch.float32, False)])
def test_heads_that_share_keys_have_a_fused_kernel_in_16_bits_alone(
    dtype: torch.dtype, fused: bool
) -> None:
    own = [torch.randn(1, heads, 128, 8, dtype=dtype) for heads in (4, 2, 2)]
    found = {}
    for device in ("cpu", "cuda"):
        q, k, v = (tensor.to(device).detach().requires_grad_() for tensor in own)
        before = torch.cuda.memory_allocated()
        out = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        kept = torch.cuda.memory_allocated() - before
        out.sum().backward()
        assert k.grad is not None
        found[device] = out.detach().cpu(), k.grad.cpu()
    assert (kept < 4 * 128 * 128 * dtype.itemsize) == fused, "less than the scores"
    for of_cpu, of_device in zip(*found.values(), strict=True):
        assert torch.allclose(of_cpu, of_device, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
def test_tensors_of_two_devices_are_an_error(other: str) -> None:
    a, b = torch.ones(3, device="cuda:0"), torch.ones(3, device=other)
    for operation in (torch.add, torch.dot, lambda a, b: a.mul_(b), lambda a, b: torch.cat([a, b])):
        with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and " + other):
            operation(a, b)
    assert (a + torch.tensor(1.0)).device == a.device, "a number of the host may take part"
    assert torch.equal(a.to(other), b)


def test_each_device_has_random_numbers_of_its_own() -> None:
    torch.manual_seed(3)
    first = torch.randn(4, device="cuda:0").cpu()
    torch.randn(7)
    assert torch.equal(torch.randn(4, device="cuda:1").cpu(), first)
    state = torch.cuda.get_rng_state()
    dropped = functional.dropout(torch.ones(50, device=CUDA))
    torch.cuda.set_rng_state(state)
    assert torch.equal(functional.dropout(torch.ones(50, device=CUDA)), dropped)
    own = torch.Generator(device="cuda").manual_seed(3)
    assert torch.equal(torch.randn(4, device=CUDA, generator=own).cpu(), first)
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
        torch.randn(4, device=CUDA, generator=torch.Generator())


def test_streams_and_events() -> None:
    stream, begun, ended = torch.cuda.Stream(), *(torch.cuda.Event(True) for _ in range(2))
    begun.record()
    with torch.cuda.stream(stream):
        assert torch.cuda.current_stream() == stream
        ended.record()
    assert torch.cuda.current_stream() == torch.cuda.default_stream() != stream
    stream.wait_event(begun)
    stream.synchronize()
    assert ended.query() and begun.elapsed_time(ended) > 0


WAITS: dict[str, Callable[[Tensor], object]] = {
    "a value read": lambda x: x.sum().item(),
    "nonzero": lambda x: x[x > 0],
    "index_put_impl_ with a mask": lambda x: x.index_put_((x > 0,), x + 1),
    "index_put_impl_ with indices of the host": lambda x: x.index_put_((HOST,), x[:1] + 1),
    "a copy to the host": lambda x: x.cpu(),
    "a copy to the device": lambda x: torch.tensor([1.0]).to(CUDA),
    "is not pinned": lambda x: torch.ones(3).to(CUDA, non_blocking=True),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
}


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("why", WAITS)
def test_waits_of_the_host_can_be_errors(why: str) -> None:
    x = torch.ones(3, device=CUDA)
    with pytest.raises(RuntimeError, match=f"called a synchronizing CUDA operation: .*{why}"):
        WAITS[why](x)


@pytest.mark.usefixtures("no_waits")
def test_what_makes_no_host_wait() -> None:
    x = torch.ones(3, device=CUDA)
    pinned = torch.ones(3).pin_memory()
    assert pinned.is_pinned() and not torch.ones(3).is_pinned()
    x += pinned.to(CUDA, non_blocking=True)
    x[x > 1] = 0  # masked_fill_
    assert x.to("cpu", non_blocking=True).is_pinned()


def test_storages_and_files(tmp_path: object) -> None:
    path = f"{tmp_path}/x.pt"
    torch.save(torch.ones(3, device="cuda:1"), path)
    assert torch.load(path).device == torch.device("cuda:1")
    assert torch.load(path, map_location="cpu").device == torch.device("cpu")
    resized = torch.empty(0, device=CUDA)
    torch.add(torch.ones(5, device=CUDA), 1, out=resized)
    assert resized.tolist() == [2] * 5


def test_a_forked_process_may_not_use_the_device() -> None:
    torch.ones(1, device=CUDA)
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            torch.ones(1, device=CUDA)
        except RuntimeError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"Cannot re-initialize CUDA in forked subprocess" in os.read(reading, 1000)


@pytest.mark.parametrize(("visible", "count"), [("1,0", 2), ("7", 0)])
def test_cuda_visible_devices(visible: str, count: int) -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": visible},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == str(count)
