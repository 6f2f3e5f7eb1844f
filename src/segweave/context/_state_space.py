"""State-space sequencing: the released option that replaces a whole cell by an S4 model of the
state.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segweave.context._cells import Cell, Step
from segweave.context.base import Prepared
from segweave.errors import UsageError

LENGTH = 64
STATES = 8

RELEASED_NAMES = {
    "encode.weight": "encoder.weight",
    "encode.bias": "encoder.bias",
    "decode.weight": "decoder.weight",
    "decode.bias": "decoder.bias",
    "p": "blocks.0.pipeline.1._p",
    "q": "blocks.0.pipeline.1._q",
    "eigenvalues": "blocks.0.pipeline.1._lambda_",
    "B": "blocks.0.pipeline.1._B",
    "C": "blocks.0.pipeline.1._Ct",
    "D": "blocks.0.pipeline.1.D",
    "log_step": "blocks.0.pipeline.1.log_step",
    "mix.weight": "blocks.0.pipeline.4.weight",
    "mix.bias": "blocks.0.pipeline.4.bias",
    "norm.weight": "blocks.0.pipeline.6.weight",
    "norm.bias": "blocks.0.pipeline.6.bias",
}
RELEASED_TABLES = ("blocks.0.pipeline.1.omega_l", "blocks.0.pipeline.1.ifft_order")


class StateSpace(nn.Module):
    """One S4 block (Gu, Goel, Ré 2022) between two linear maps, with channels as its time and
    positions as its features: (B, 64, positions) → (B, 64, positions).

    Complex parameters hold real and imaginary part in their last axis.
    """

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.encode = nn.Linear(positions, width)
        self.decode = nn.Linear(width, positions)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        p, q, eigenvalues = _hippo(STATES)
        self.p = nn.Parameter(p)
        self.q = nn.Parameter(q)
        self.eigenvalues = nn.Parameter(eigenvalues[None, None])
        self.B = nn.Parameter(torch.randn(width, STATES, 2) / math.sqrt(width + STATES))
        self.C = nn.Parameter(torch.randn(width, STATES, 2) / math.sqrt(width + STATES))
        self.D = nn.Parameter(torch.ones(1, 1, width))
        self.log_step = nn.Parameter(torch.empty(width).uniform_(math.log(0.001), math.log(0.1)))

    def kernel(self) -> Tensor:
        """The convolution's kernel, (width, 64)."""
        p, q, eigenvalues, b, c = (
            torch.view_as_complex(part.contiguous())
            for part in (self.p, self.q, self.eigenvalues, self.B, self.C)
        )
        turn = torch.arange(LENGTH, device=p.device, dtype=self.p.dtype) * (2 * math.pi / LENGTH)
        w = torch.polar(torch.ones_like(turn), turn)
        step = self.log_step.exp()
        # The generating function's bilinear transform, multiplied through by 1 + w, which is nearly
        # zero at half the circle.
        denominator = (2 / step)[:, None, None] * (1 - w)[:, None] - eigenvalues * (1 + w)[:, None]
        reciprocal = denominator.reciprocal()  # (width, length, states)

        def summed(left: Tensor, right: Tensor) -> Tensor:
            product = torch.broadcast_to(left.conj() * right, (step.shape[0], STATES))
            return (reciprocal * product[:, None]).sum(-1)

        k00, k01, k10, k11 = summed(c, b), summed(c, p), summed(q, b), summed(q, p)
        spectrum = 2 * (k00 - k01 * k10 * (1 + w) / (1 + (1 + w) * k11))
        # The inverse transform read backwards is the forward one over the length.
        return torch.fft.fft(spectrum, norm="forward").real

    def forward(self, state: Tensor) -> Tensor:
        """(B, 64, positions) → the same shape."""
        u = self.encode(state)
        spectrum = torch.fft.rfft(self.kernel(), n=2 * LENGTH).transpose(0, 1)
        padded = torch.fft.rfft(u, n=2 * LENGTH, dim=1)
        v = torch.fft.irfft(padded * spectrum, n=2 * LENGTH, dim=1)[:, :LENGTH] + self.D * u
        result: Tensor = self.decode(self.norm(self.mix(nn.functional.gelu(v)) + u))
        return result


class StateSpaceCell(Cell):
    """h' = c' = S4(h) from h = 0: the released cell returns before it looks at its input, so that
    no output depends on the image.
    """

    def __init__(self, channels: int, hidden: int, positions: int) -> None:
        super().__init__()
        if hidden != LENGTH:
            raise UsageError(
                "creating a context module with use_state_space_sequencing",
                expected=f"{LENGTH} channels: they are the time axis of its S4 model",
                found=str(hidden),
            )
        self.channels = channels
        self.width = hidden
        self.positions = positions
        self.s4 = StateSpace(positions, hidden)

    def first(self, x: Tensor, everything: bool = False) -> Step:
        """The step from a zero state; of `x`, the shape counts."""
        return self._advance(self.zero_state(x))

    def forward(self, x: Tensor, c: Tensor, h: Tensor) -> Step:
        """The step from state h."""
        return self._advance(h)

    def prepare_input(self, x: Tensor) -> Prepared:
        """The input itself, for its shape."""
        return {"x": x}

    def begin(self, inputs: Prepared) -> Step:
        """The step from a zero state."""
        return self.first(inputs["x"])

    def prepare_state(self, step: Step) -> Prepared:
        """The state."""
        return {"h": step.h}

    def combine(self, inputs: Prepared, state: Prepared) -> Step:
        """The step from a prepared state."""
        return self._advance(state["h"])

    def _advance(self, h: Tensor) -> Step:
        height, width = h.shape[2:]
        if height * width != self.positions:
            raise UsageError(
                "running a context module with use_state_space_sequencing",
                expected=f"maps of exactly attention_size = {self.positions} positions",
                found=f"{height}×{width} = {height * width}",
                remedy=f"create the module with attention_size={height * width}",
            )
        # Half precision knows no Fourier transform.
        with torch.autocast(h.device.type, enabled=False):
            state: Tensor = self.s4(h.flatten(2).to(self.s4.D.dtype))
        state = state.reshape(h.shape)
        return Step(state, state, {})


def _hippo(states: int) -> tuple[Tensor, Tensor, Tensor]:
    """p, q and eigenvalues of the HiPPO-LegS matrix as normal plus low rank, each (states, 2)."""
    n = np.arange(1, states + 1)
    root = np.sqrt(2 * n + 1)
    q = root
    p = root / 2
    # Lower triangle −√(2n+1)√(2k+1), diagonal −(n+1); with p qᵀ added it is −½ I plus a
    # skew-symmetric matrix, whose eigenvectors are unitary.
    skew = np.outer(p, q)
    skew = np.triu(skew, 1) - np.tril(skew, -1)
    imaginary, vectors = np.linalg.eigh(-1j * skew)
    eigenvalues = (-0.5 + 1j * imaginary).astype(np.complex128)

    def parts(value: npt.NDArray[np.complex128]) -> Tensor:
        return torch.tensor(np.stack([value.real, value.imag], -1), dtype=torch.float32)

    adjoint = vectors.conj().T.astype(np.complex128)
    return parts(adjoint @ p), parts(adjoint @ q), parts(eigenvalues)
