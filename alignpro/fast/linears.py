"""Linear layers in the number formats that a CPU multiplies fastest."""

from __future__ import annotations

from collections.abc import Callable

import torch

from alignpro.config import ModelSpec
from alignpro.devices import device


def decoder(model: torch.nn.Module) -> torch.nn.Module:
    """The layers of a causal language model, its adapter included, without its head.

    A pass through it fills a cache as a pass of the model does, without the product with the
    vocabulary.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.get_decoder()


class Int8Linear(torch.nn.Module):
    """y = x Wᵀ + b with 8-bit weights (one scale per output) and inputs (one scale per row).

    The products are summed exactly, in 32-bit integers, so that the result of a row does not depend
    on the other rows of its batch. It has no gradients.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / 127
        whole = (rows / scale).round().to(torch.int8)
        out = torch._int_mm(whole, self.weight.t()) * scale * self.scale
        out = out if self.bias is None else out + self.bias
        return out.to(x.dtype).reshape(*x.shape[:-1], -1)


class PackedLinear(torch.nn.Module):
    """y = x Wᵀ + b with the weights laid out once, as AMX tiles read them.

    PyTorch lays out the weights of a Linear again for every product. It has no gradients.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        # The layout is the fastest for 64 rows; any number can be multiplied.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 64)
        self.register_buffer("bias", linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class Bf16Linear(torch.nn.Module):
    """y = x Wᵀ + b with x and W rounded to bfloat16 and everything around it in float32.

    Gradients flow to x. W is not trained.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        self.register_buffer("bias", linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.nn.functional.linear(x.bfloat16(), self.weight).to(x.dtype)
        return out if self.bias is None else out + self.bias


def to_fast(model: torch.nn.Module, spec: ModelSpec, trained_layers: int = 0) -> torch.nn.Module:
    """`model` with the products that this CPU computes fastest, in place; unchanged on a GPU.

    With AMX tiles these are the same products in bfloat16, their weights laid out once; with
    AVX512-VNNI, where `spec` asks for them, 8-bit ones. (On a CPU with AVX2 alone PyTorch's integer
    products took thirty times as long as those in float32.) With `trained_layers` > 0, the last
    layers and the head above them do not change: gradients flow through them.
    """
    if device().type != "cpu":
        return model
    if torch.cpu._is_amx_tile_supported():
        form = PackedLinear if model.dtype == torch.bfloat16 else None
    else:
        form = Int8Linear if spec.int8 and torch.cpu._is_vnni_supported() else None
    if form is None:
        return model
    layers = decoder(model).layers
    parts = layers[: len(layers) - trained_layers] if trained_layers else [model]
    for part in parts:
        swap_linears(part, form)
    return model


def to_bf16(model: torch.nn.Module, spec: ModelSpec) -> torch.nn.Module:
    """`model`, adapters included, with bfloat16 products where `to_fast` left float32, in place.

    Only on CPUs with AVX512-BF16, which compute them about twice as fast.
    """
    if not spec.int8 or device().type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return model
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            fixed = isinstance(child, torch.nn.Linear) and not child.weight.requires_grad
            if fixed and child.weight.dtype == torch.float32:
                setattr(parent, name, Bf16Linear(child))
    return model


def swap_linears(part: torch.nn.Module, form: Callable[[torch.nn.Linear], torch.nn.Module]) -> None:
    """Replace every Linear in `part` by `form(linear)`."""
    for parent in list(part.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.Linear):
                setattr(parent, name, form(child))


def arithmetic(model: torch.nn.Module) -> list[str]:
    """The number formats that the linear layers of `model` multiply in, sorted by name."""
    kinds = (Int8Linear, PackedLinear, Bf16Linear, torch.nn.Linear)
    return sorted(
        {str(m.weight.dtype).split(".")[1] for m in model.modules() if isinstance(m, kinds)}
    )


def copy_head_input(model: torch.nn.Module) -> None:
    """Let the output head of `model`, if it has one, copy its input before it multiplies.

    Models pass it a slice: the last positions of each row. PyTorch multiplies such a slice row by
    row, and in bfloat16 on a CPU it copies the head for each row.
    """

    def contiguous(head: torch.nn.Module, states: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        # `contiguous` would return the slice of a single row unchanged, with its strides.
        return tuple(x.clone(memory_format=torch.contiguous_format) for x in states)

    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(contiguous)
