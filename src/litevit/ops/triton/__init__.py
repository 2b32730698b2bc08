"""Triton kernels of the operators, one file each, registered as custom operators `litevit::...`.

Run on an H200, and in Triton's interpreter on the CPU. Plain models do not take them; `litevit.optimize` does, where it
was measured to pay (ADR 4). Autocast casts nothing here. These files need Triton; nothing imports them without it.

Common to all: products and sums are accumulated in float32 (float64 for float64 inputs) whatever the dtype of the
inputs; addresses are 64 bit; what lies outside a map is masked, never read; each can be differentiated once.
"""
