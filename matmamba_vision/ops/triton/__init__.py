"""The backend "triton": kernels of our own for a GPU, or slowly for Triton's interpreter on a CPU.

Nothing is imported here, because Triton may not be installed: `ssd` launches the scan's kernels, which stand
in `ssd_kernels`; `conv_and_norm_kernels` has what stands beside the scan; `launch` what launches have in
common; `oldest` which versions of Triton may compute. `block` has all of a block by other kernels.
`candidates` is the table of launches, `chosen` takes a row of it, `trials` finds which is the fastest, and
`ahead` compiles without a GPU.
"""
