"""A Mamba2 block for inference in five launches: two matrix products by cuBLAS, and three kernels of ours.

| launch | what |
| --- | --- |
| product | z, x, B, C and dt of normalised tokens, by packed weights: a row of E numbers a token |
| `conv_scores` | convolution + SiLU; steps and decays; scores C B^T of pairs of tiles |
| `scan_quadratic`, `scan_state` | scan, skip, gate; sums of squares for the norm |
| product | output projection, with the norm's weight in it |
| `norm_residual` | the norm's factor, the residual stream, the LayerNorm of the next block |

Every kernel is one custom operation, so that `torch.compile` and CUDA graphs take it as it is; each has a
file that launches it and one in Triton's language, ending in `_kernel`. `tile_parts` has what the kernels
share, `configs` how they are launched, `packing` the weights as they read them, and `mixed` all of a block.

Nothing is imported here, because Triton may not be installed.

Tokens are cut into tiles of T; the last one is padded. Decays are kept in log2 and summed within a tile, so
that every exponent is a sum of a few numbers that are not positive. B and C are shared by the heads of a
group: off the diagonal of tiles, a score times inputs is one product for all heads of a program, and a head's
decay is a scale of rows and of columns. Shape suffixes as in `ops`; further E numbers of a row, I = H P, X
convolved channels (x, then B and C of each group), G groups.
"""
