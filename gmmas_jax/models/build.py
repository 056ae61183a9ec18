"""Networks by their configuration."""

from collections.abc import Callable
from typing import Any

from gmmas_jax.errors import UserError
from gmmas_jax.models.gmmas import GMMAS, make_gmmas
from gmmas_jax.models.unet import UNet, make_unet

NETWORKS: dict[str, Callable[..., GMMAS | UNet]] = {"gmmas": make_gmmas, "unet": make_unet}


def make_model(*, network: str = "gmmas", **section: Any) -> GMMAS | UNet:
    """Builds the network of `config.model`, or of the same section of `config.json`.

    Args:
        network: A name of `NETWORKS`; weights of early versions do not state theirs.
        **section: Arguments of its builder.

    Returns:
        The network, without parameters. Both kinds are called alike.

    Raises:
        UserError: If there is no such network, or a field is missing, unknown or impossible.
    """
    if network not in NETWORKS:
        raise UserError(f"model.network is {network!r}; expected one of {', '.join(NETWORKS)}.")
    return NETWORKS[network](**section)
