"""What a piece of code costs, found by running it on tensors that have shapes and no data.

On PyTorch's meta device a model of any size is built and run in seconds. A :class:`Ledger` around
the run counts what a GPU would have to hold, to compute and to read.
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
# The meta device has no fused attention of its own; the CPU's keeps what those of GPUs keep:
# queries, keys, values, the output, and one number a row of the scores instead of the scores.
FUSED = aten._scaled_dot_product_flash_attention_for_cpu
FORMULAS = {
    **flop_registry,
    FUSED: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


@dataclass(frozen=True)
class Cost:
    """Of one run: peak bytes beyond what was there before, FLOPs, and bytes of weights read.

    `logits` is the part of `peak` in tensors as wide as the vocabulary. A multiplication and an
    addition are two FLOPs; only matrix products and attention count. Weights are read once by
    each matrix product. `result` is what the run returned.
    """

    peak: int
    logits: int
    flops: int
    read: int
    result: object


class Ledger(TorchDispatchMode):
    """Follows every tensor that is made within, until it is freed.

    What is in `known` was there before and is not counted; `weights` are followed when read.
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
            # Its kernels, on CPUs and GPUs, work on a copy that no other operation sees.
            self._add(args[0].nbytes, wide=True)
            self._add(-args[0].nbytes, wide=True)
        formula = FORMULAS.get(func.overloadpacket)
        if formula:
            self.flops += formula(*args, **kwargs, out_val=out)
            operands = [t for t in args if isinstance(t, torch.Tensor)]
            self.read += sum(_size(t) for t in operands if _address(t) in self.weights)
        return out

    def _result(self, func, args, kwargs) -> object:
        """What `func` returns; a new tensor is made without asking again for the same shapes.

        PyTorch works many shapes out in Python, a millisecond for each, and all layers repeat them.
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
    """What of the arguments of an operation decides the shape of its result."""
    if isinstance(arguments, torch.Tensor):
        return arguments.shape, arguments.stride(), arguments.dtype, arguments.device
    if isinstance(arguments, (tuple, list)):
        return tuple(_shapes(x) for x in arguments)
    return type(arguments), arguments  # a result's type differs between 1, 1.0 and True


def _new(func, inputs: list, out: object) -> dict | None:
    """How to make a tensor like `out`, if it is a single one that shares no memory."""
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
    """Bytes that reading `tensor` touches: one that repeats itself has no more than it holds."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


class Dataless(TorchFunctionMode):
    """Within, the meta device does what code asks of tensors with data.

    Attention runs as a fused kernel, as on CPUs and GPUs. A condition on data is not met: the only
    one on the way is whether no row of a batch is padded.
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
    """What `run`, which uses `model` on the meta device, costs; `known` was there before."""
    there = [*model.buffers(), *known]
    ledger = Ledger(model.parameters(), there, model.config.vocab_size)
    with Dataless(), ledger:
        result = run()
    return Cost(ledger.peak, ledger.peak_logits, ledger.flops, ledger.read, result)
