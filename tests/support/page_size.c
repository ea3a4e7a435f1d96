// SPDX-License-Identifier: Apache-2.0
//
// Preloaded: tells Faultline and LMDB that the kernel's pages are of $PAGE_SIZE bytes. Only them,
// as an allocator or a sanitizer that believed it could not work.
#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_lied_to(const void *caller)
{
    Dl_info place;
    if (dladdr(caller, &place) == 0 || !place.dli_fname)
        return false;
    const char *slash = strrchr(place.dli_fname, '/');
    const char *name = slash ? slash + 1 : place.dli_fname;
    return strncmp(name, "faultline", 9) == 0 || strncmp(name, "libfaultline", 12) == 0 ||
           strncmp(name, "liblmdb", 7) == 0;
}

__attribute__((visibility("default"))) long sysconf(int name)
{
    static long (*real)(int);
    const char *bytes = getenv("PAGE_SIZE");
    if (name == _SC_PAGESIZE && bytes && is_lied_to(__builtin_return_address(0)))
        return atol(bytes);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sysconf");
    return real(name);
}
