"""Triton kernels of the operators, one file each, registered as custom operators `litevit::...`.

Never run on a GPU; checked with Triton's interpreter on the CPU, and compiled for sm_80 and sm_90. No model takes them
by itself: who wants one calls it, with tensors of the dtypes it is to see, as autocast casts nothing here. These files
need Triton; nothing else imports them without it.

Common to all: products and sums are accumulated in float32 (float64 for float64 inputs) whatever the dtype of the
inputs; addresses are 64 bit; what lies outside a map is masked, never read; each can be differentiated once.
"""
