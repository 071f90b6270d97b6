"""SkyRL's JAX backend imports torch for the names of two types. PyTorch weighs 3 GB, so an empty one takes its place."""


class Tensor:
    pass


class dtype:  # noqa: N801
    pass
