/* Which instruction sets this processor has, best first. */
#include <string.h>

#include "instructions.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Conversions of float16; compilers do not all know its name. */
static int converts_halves(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

static int supports(const char *name) {
    __builtin_cpu_init();
    if (!strcmp(name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl") && converts_halves();
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && converts_halves();
    return 1;
}
static const char *const names[] = {"avx512", "avx2", "plain"};
#elif defined(__aarch64__)
static int supports(const char *name) { return name != 0; }
static const char *const names[] = {"neon", "plain"};
#else
static int supports(const char *name) { return name != 0; }
static const char *const names[] = {"plain"};
#endif
#define COUNT (sizeof names / sizeof *names)

/* Asked once, because a virtual machine answers slowly: 1 for yes, 2 for no. Who asks twice hears the same. */
static int supported(size_t i) {
    static int known[COUNT];
    int answer = __atomic_load_n(&known[i], __ATOMIC_RELAXED);
    if (!answer) __atomic_store_n(&known[i], answer = supports(names[i]) ? 1 : 2, __ATOMIC_RELAXED);
    return answer == 1;
}

const char *matmamba_instructions(const char *wanted) {
    for (size_t i = 0; i < COUNT; i++)
        if ((!wanted || !*wanted || !strcmp(wanted, names[i])) && supported(i)) return names[i];
    return 0;
}
