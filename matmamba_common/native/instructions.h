/* What all kernels in C share. A file of kernels is compiled once for each instruction set, with -DISA=NAME and the
 * compiler's flags for it, and once without: that part chooses among the sets by `matmamba_instructions`. */
#ifndef MATMAMBA_INSTRUCTIONS
#define MATMAMBA_INSTRUCTIONS

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

/* The name of an instruction set that this processor has: the wanted one, or the best where none is named ("" or null);
 * null if it does not have the wanted one. Every processor has "plain", for which not all kernels are made. */
const char *matmamba_instructions(const char *wanted);

#endif
