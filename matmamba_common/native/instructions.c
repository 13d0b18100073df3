/* Which instruction sets this processor has, best first. */
#include <string.h>

#include "instructions.h"

#if defined(__x86_64__)
static int supports(const char *name) {
    __builtin_cpu_init();
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static const char *const names[] = {"avx512", "avx2"};
#elif defined(__aarch64__)
static int supports(const char *name) { return name != 0; }
static const char *const names[] = {"neon"};
#else
static int supports(const char *name) { return !name; }
static const char *const names[] = {""};
#endif

const char *matmamba_instructions(const char *wanted) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((!wanted || !*wanted || !strcmp(wanted, names[i])) && supports(names[i])) return names[i];
    return 0;
}
