"""The cost of a piece of code, found by running it on tensors that have shapes but no data.

PyTorch's meta device builds and runs a model of any size in seconds. :func:`cost` runs code there
and counts the memory that a GPU would need, the FLOPs, and the bytes of weights it would read.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

aten = torch.ops.aten
# The meta device has no fused attention of its own. The CPU's keeps what the GPU's keep: queries,
# keys, values, the output, and one number per row of the scores instead of the scores themselves.
FUSED = aten._scaled_dot_product_flash_attention_for_cpu
FORMULAS = {
    **flop_registry,
    FUSED: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    `peak`: bytes held at the peak, beyond what was there before the run.
    `logits`: the part of `peak` in tensors whose last dimension is the vocabulary.
    `flops`: of matrix products and attention; a multiplication and an addition are two.
    `read`: bytes of weights read, once per matrix product.
    `result`: what the run returned.
    """

    peak: int
    logits: int
    flops: int
    read: int
    result: object


class CostMeter(TorchDispatchMode):
    """Follows every tensor made while the mode is active, until the tensor is freed.

    `weights` and `known` were there before, so their bytes are not counted; reads of `weights` are.
    `vocab` is the size of the vocabulary, by which logits are recognised.
    """

    def __init__(self, weights: Iterable[torch.Tensor], known: Iterable[torch.Tensor], vocab: int):
        super().__init__()
        self.weights = {_address(t) for t in weights}
        self.known = self.weights | {_address(t) for t in known}
        self.vocab = vocab
        self.held: dict[int, weakref.ref] = {}
        self.live = self.live_logits = self.peak = self.peak_logits = 0
        self.flops = self.read = 0
        self.results: dict[tuple, dict | None] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = self._result(func, args, kwargs)
        for tensor in [out] if isinstance(out, torch.Tensor) else tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor)
        if func.overloadpacket is aten._log_softmax and not args[0].is_contiguous():
            # Its kernels, on CPUs and GPUs, first make a contiguous copy that nothing else sees.
            self._add(args[0].nbytes, wide=True)
            self._add(-args[0].nbytes, wide=True)
        formula = FORMULAS.get(func.overloadpacket)
        if formula:
            self.flops += formula(*args, **kwargs, out_val=out)
            operands = [t for t in args if isinstance(t, torch.Tensor)]
            self.read += sum(_size(t) for t in operands if _address(t) in self.weights)
        return out

    def _result(self, func, args, kwargs) -> object:
        """The result of `func`. Where its shape was seen before, only an empty tensor is made.

        PyTorch derives many shapes in Python, at a millisecond each, and every layer repeats them.
        """
        key = (func, _shapes(args), _shapes(tuple(kwargs.items())))
        if self.results.get(key):
            return torch.empty_strided(**self.results[key])
        out = func(*args, **kwargs)
        if key not in self.results:
            self.results[key] = _new(func, tree_leaves((args, kwargs)), out)
        return out

    def _hold(self, tensor: torch.Tensor) -> None:
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in self.known or address in self.held:
            return
        size, wide = storage.nbytes(), tensor.ndim > 1 and tensor.shape[-1] == self.vocab

        def freed(_, address=address, size=size, wide=wide):
            del self.held[address]
            self._add(-size, wide)

        self.held[address] = weakref.ref(storage, freed)
        self._add(size, wide)

    def _add(self, size: int, wide: bool) -> None:
        self.live += size
        self.live_logits += size if wide else 0
        if self.live > self.peak:
            self.peak, self.peak_logits = self.live, self.live_logits


def _shapes(arguments: object) -> object:
    """A hashable summary of an operation's arguments that determines its result's shape."""
    if isinstance(arguments, torch.Tensor):
        return arguments.shape, arguments.stride(), arguments.dtype, arguments.device
    if isinstance(arguments, (tuple, list)):
        return tuple(_shapes(x) for x in arguments)
    return type(arguments), arguments  # a result's type differs between 1, 1.0 and True


def _new(func, inputs: list, out: object) -> dict | None:
    """Arguments that make a tensor like `out`; None unless it is one with memory of its own."""
    if not isinstance(out, torch.Tensor) or not out.is_meta or func._schema.is_mutable:
        return None
    like = dict(size=out.shape, stride=out.stride(), dtype=out.dtype, device="meta")
    whole = torch.empty_strided(**like).untyped_storage().nbytes()
    shared = {_address(t) for t in inputs if isinstance(t, torch.Tensor)}
    alone = _address(out) not in shared and out.untyped_storage().nbytes() == whole
    return like if alone else None


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _size(tensor: torch.Tensor) -> int:
    """Bytes touched by reading `tensor`; an expanded tensor touches only what it stores."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


class WithoutData(TorchFunctionMode):
    """Lets code that expects data run on the meta device.

    Attention runs as one fused kernel, as on CPUs and GPUs. A condition on data counts as false;
    the only one in the code that is planned asks whether a batch has no padding.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention and args[0].is_meta:
            return _fused(*args, **kwargs)
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return False
        return func(*args, **kwargs)


def _fused(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, 1)
    options = {"attn_mask": attn_mask, "scale": scale}
    return FUSED(query, key, value, dropout_p, is_causal, **options)[0]


def cost(model: nn.Module, run: Callable[[], object], known: Iterable[torch.Tensor] = ()) -> Cost:
    """The cost of calling `run`, which uses `model` on the meta device.

    Tensors in `known`, such as a cache, were there before and are not counted.
    """
    there = [*model.buffers(), *known]
    meter = CostMeter(model.parameters(), there, model.config.vocab_size)
    with WithoutData(), meter:
        result = run()
    return Cost(meter.peak, meter.peak_logits, meter.flops, meter.read, result)
