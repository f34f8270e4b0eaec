"""The roofline: the time that no implementation of a step on a device can beat, from the device's measured rates."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of one fp32 parameter in one step: AdamW reads parameter, gradient and two moments, and writes all but the
# gradient; the backward pass writes the gradient, and clipping reads it for the norm.
ADAMW_BYTES = 7 * 4
GRADIENT_BYTES = 2 * 4


@dataclass(frozen=True)
class Rates:
    """The highest rates measured on a device.

    Attributes:
        device: name of the device.
        precision: precision of the matrix product.
        flops: operations per second of a large product of random matrices.
        bytes: bytes read and written per second by a large copy within the device's memory.
        vendor_flops: the vendor's peak for that precision; None when not known.
    """

    device: str
    precision: str
    flops: float
    bytes: float
    vendor_flops: float | None


def roofline_ms(flops: float, parameters: int, rates: Rates) -> float:
    """Milliseconds of one step: its operations at the rate of products, then the optimizer's bytes at that of copies.

    The two are added: an optimizer step needs every gradient's norm first, so it cannot run beside the products.
    """
    return 1000 * (flops / rates.flops + step_bytes(parameters) / rates.bytes)


def step_bytes(parameters: int) -> int:
    """Bytes that AdamW, the gradients and the norm for clipping must move in one step of fp32 parameters."""
    return parameters * (ADAMW_BYTES + GRADIENT_BYTES)
