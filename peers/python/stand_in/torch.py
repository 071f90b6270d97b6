"""As much of a differentiable tensor as the custom loss of the official SDK needs, on numpy.

PyTorch itself comes from the package index only with its libraries for GPUs, 3 GB of them. The SDK asks it for gradients of
a user's function and nothing else, so a tape of four operations takes its place, and is used only where this folder is put
on the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
int64 = np.dtype(np.int64)
bfloat16 = "bfloat16"
dtype = np.dtype


class Tensor:
    def __init__(self, array: Any, backwards: tuple[tuple[Tensor, Callable[[Any], Any]], ...] = ()) -> None:
        self.array = np.asarray(array)
        self.requires_grad = False
        self.grad: Tensor | None = None
        self._backwards = backwards

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def shape(self) -> Any:
        return self.array.shape

    def reshape(self, shape: Any) -> Tensor:
        return Tensor(self.array.reshape(shape))

    def clone(self) -> Tensor:
        return Tensor(self.array.copy())

    def detach(self) -> Tensor:
        return Tensor(self.array)

    def contiguous(self) -> Tensor:
        return self

    def numpy(self) -> Any:
        return np.ascontiguousarray(self.array)

    def item(self) -> Any:
        return self.array.item()

    def requires_grad_(self, wanted: bool = True) -> Tensor:
        self.requires_grad = wanted
        return self

    def __neg__(self) -> Tensor:
        return Tensor(-self.array, ((self, lambda grad: -grad),))

    def __mul__(self, other: Tensor) -> Tensor:
        return Tensor(
            self.array * other.array,
            ((self, lambda grad: grad * other.array), (other, lambda grad: grad * self.array)),
        )

    def __sub__(self, other: Tensor) -> Tensor:
        return Tensor(self.array - other.array, ((self, lambda grad: grad), (other, lambda grad: -grad)))

    def sum(self) -> Tensor:
        return Tensor(self.array.sum(), ((self, lambda grad: np.full_like(self.array, grad)),))

    def backward(self, grad: Any = None) -> None:
        grad = np.ones_like(self.array) if grad is None else grad
        if self.requires_grad:
            self.grad = Tensor(grad if self.grad is None else self.grad.array + grad)
        for tensor, way in self._backwards:
            tensor.backward(way(grad))


def tensor(data: Any, dtype: Any = None) -> Tensor:
    array = np.asarray(data)
    return Tensor(array.astype(dtype or (np.float32 if array.dtype.kind == "f" else np.int64)))
